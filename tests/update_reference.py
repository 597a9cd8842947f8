"""Write docs/commands.md and docs/reference.md, from the command line's help and from the docstrings.

    python -m tests.update_reference        # or: make links

Docstrings are written for `help()`: prose, blocks of code, and lists whose lines are a name, some blanks and what it
means.  `docstrings.py` makes Markdown of them.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .commands_page import commands_page
from .docs_pages import ROOT
from .docstrings import as_markdown, comment_above, first_sentence

NOTE = "<!-- Written by `make links`: change the source, not this page. -->"

# The modules whose names are meant for others, in the order of a reader's interest.
MODULES = (
    "receptance",
    "receptance.generation",
    "receptance.templates",
    "receptance.tokenizers",
    "receptance.catalogue",
    "receptance.hub",
    "receptance.batch",
    "receptance.evaluation",
    "receptance.checkpoints",
    "receptance.quant",
    "receptance.models",
    "receptance.ops",
    "receptance.ops.cpu",
    "receptance.ops.triton",
    "receptance.runtime",
    "receptance.engine",
    "receptance.server",
    "receptance.many",
    "receptance.interpret",
    "receptance.data",
    "receptance.training",
    "receptance.adapters",
    "receptance.experiment",
    "receptance.baselines",
)
# Signatures that are longer than this have a line for each parameter.
WIDTH = 100


def reference_page() -> str:
    """Signature and docstring of every public name, module by module."""
    modules = [Module(name) for name in MODULES]
    rows = [f"| [`{module.name}`](#{_anchor(module.name)}) | {module.summary} |" for module in modules]
    parts = [
        "# Python reference",
        "Every public name with its docstring. [From Python](python.md) is the tour; here is where to look things up.",
        "\n".join(["| module | |", "|---|---|", *rows]),
    ]
    for module in modules:
        parts += module.parts()
    return "\n\n".join(part for part in parts if part) + "\n"


class Module:
    """One module's part of the page."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: ModuleType = import_module(name)

    @cached_property
    def names(self) -> list[str]:
        """Those of `__all__`, or without one those that the module itself defines."""
        listed = getattr(self.module, "__all__", None)
        if listed is not None:
            return [name for name in listed if name != "__version__"]
        return [name for name, value in vars(self.module).items() if name[0] != "_" and self._is_own(value)]

    def _is_own(self, value: Any) -> bool:
        if inspect.isclass(value) or inspect.isfunction(value):
            return value.__module__ == self.name
        return isinstance(value, dict) and bool(value)

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return first_sentence(inspect.getdoc(self.module) or "")

    @property
    def values(self) -> list[Any]:
        """What the names stand for."""
        return [getattr(self.module, name) for name in self.names]

    def _anchor_of(self, name: str) -> str:
        # Anchors know no case; the second of two like `Known` and `KNOWN` gets a number.
        earlier = [other.lower() for other in self.names[: self.names.index(name)]]
        return _anchor(f"{self.name}.{name}") + ("-1" if name.lower() in earlier else "")

    def parts(self) -> Iterator[str]:
        """Heading, docstring and an entry for each name."""
        yield f"## `{self.name}`"
        yield as_markdown(inspect.getdoc(self.module) or "")
        yield " · ".join(f"[`{name}`](#{self._anchor_of(name)})" for name in self.names)
        for name in self.names:
            yield f"### `{self.name}.{name}`"
            yield from self._entry(name, getattr(self.module, name))

    def _entry(self, name: str, value: Any) -> Iterator[str]:
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            yield f"```py\n{name} = {_shortened(value)}\n```"
            yield as_markdown(comment_above(Path(self.module.__file__ or ""), name))
            return
        home = next(module for module in map(Module, MODULES) if value in module.values)
        if home.name != self.name:
            yield f"The same as [`{home.name}.{name}`](#{home._anchor_of(name)})."
            return
        yield from _described(value.__name__, value)
        if inspect.isclass(value):
            yield from _class_parts(value)


def _class_parts(kind: type) -> Iterator[str]:
    """What belongs to a class: how one is made, then its properties, then its methods."""
    # Not `getdoc`: that of a class which describes none would be its parent's.
    yield as_markdown(inspect.cleandoc(getattr(vars(kind).get("__init__"), "__doc__", None) or ""))
    described = [(name, member) for name, member in _members(kind) if isinstance(member, property)]
    yield "\n".join(f"- `{name}`: {as_markdown(inspect.getdoc(member) or '')}" for name, member in described)
    for name, member in _members(kind):
        if not isinstance(member, property):
            yield f"#### `{kind.__name__}.{name}`"
            yield from _described(name, member)


def _described(name: str, value: Any) -> Iterator[str]:
    yield f"```py\n{_signature('class' if inspect.isclass(value) else 'def', name, value)}\n```"
    yield as_markdown(inspect.getdoc(value) or "")


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class itself defines and describes."""
    for name, member in vars(kind).items():
        if isinstance(member, cached_property):
            member = property(member.func)
        member = getattr(member, "__func__", member)  # of a class method
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(function) and inspect.getdoc(function):
            yield name, member


def _signature(keyword: str, name: str, value: Any) -> str:
    """Parameters and result; what every method and every constructor has is left out."""
    start = f"{keyword} {name}"
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"{start}({', '.join(base.__name__ for base in value.__bases__)})"
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return start
    untold = inspect.isclass(value) or signature.return_annotation is inspect.Signature.empty
    result = "" if untold else f" -> {_annotation(signature.return_annotation)}"
    parameters = list(_parameters([it for it in signature.parameters.values() if it.name not in ("self", "cls")]))
    text = f"{start}({', '.join(parameters)}){result}"
    return text if len(text) <= WIDTH else f"{start}(" + "".join(f"\n    {it}," for it in parameters) + f"\n){result}"


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    starred = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
        text = f"{stars.get(parameter.kind, '')}{parameter.name}"
        if parameter.annotation is not inspect.Parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {_default(parameter.default)}"
        yield text


def _annotation(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(_default, sorted(value)))}}}"
    # What a dataclass makes anew for each of its values has an address of this machine, or no name, for a text.
    return "..." if repr(value).startswith("<") else repr(value)


def _shortened(value: Any) -> str:
    if isinstance(value, dict):
        lines, line = list[str](), ""
        for key in value:
            if len(line) + len(str(key)) > WIDTH:
                lines, line = [*lines, line.rstrip()], ""
            line += f"{key!r}: ..., "
        return "{\n    " + "\n    ".join([*lines, line.rstrip()]) + "\n}"
    return repr(value)


def _anchor(title: str) -> str:
    """The name by which GitHub links a heading of this text."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


PAGES = {"commands.md": commands_page, "reference.md": reference_page}


def generated(name: str) -> str:
    """One of PAGES as it should be."""
    return f"{NOTE}\n\n{PAGES[name]()}"


def main() -> int:
    for name in PAGES:
        path, text = ROOT / "docs" / name, generated(name)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"updated docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
