"""Write docs/commands.md and docs/reference.md, from the command line's help and the docstrings.

python -m tests.update_reference        # or: make links
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import typer.cli
import typer.main

import receptance
from receptance.cli import app

from .docs_pages import ROOT

# The modules whose names are meant for others, in the order of a reader's interest.
MODULES = (
    "receptance",
    "receptance.generation",
    "receptance.templates",
    "receptance.tokenizers",
    "receptance.catalogue",
    "receptance.batch",
    "receptance.evaluation",
    "receptance.checkpoints",
    "receptance.models",
    "receptance.ops",
    "receptance.training",
    "receptance.baselines",
)
NOTE = "<!-- Written by `make links`; change the source, not this page. -->"


def commands_page() -> str:
    """The help of every command, as typer writes it."""
    text = typer.cli.get_docs_for_click(obj=typer.main.get_command(app), ctx=_context(), name="receptance")
    # Usage lines are no commands that could be run, and docs_pages.py would run them.
    text = text.replace("```console\n$ receptance", "```text\nreceptance")
    text = re.sub(r"^# `receptance`$", "# Commands", text, flags=re.MULTILINE)
    return f"{NOTE}\n\n{text.rstrip()}\n"


def _context() -> Any:
    command = typer.main.get_command(app)
    return typer.Context(command, info_name="receptance")  # type: ignore[arg-type]


def reference_page() -> str:
    """Signature and docstring of every public name, module by module."""
    parts = [
        NOTE,
        "# Python reference",
        "Every public name, with its docstring.  [From Python](python.md) is the tour.",
    ]
    for name in MODULES:
        module = import_module(name)
        parts += [f"## `{name}`", _docstring(module)]
        for public in _public_names(module):
            parts += _entry(f"{name}.{public}", getattr(module, public), name)
    return "\n\n".join(parts) + "\n"


def _public_names(module: ModuleType) -> list[str]:
    return [name for name in getattr(module, "__all__", ()) if name != "__version__"]


def _entry(title: str, value: Any, module: str) -> Iterator[str]:
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        yield f"### `{title}`"
        yield f"```text\n{_shortened(value)}\n```"
        return
    yield f"### `{title}`"
    if module != "receptance" and getattr(receptance, value.__name__, None) is value:
        yield f"The same as `receptance.{value.__name__}`."
        return
    yield _described(value.__name__, value)
    if inspect.isclass(value):
        for name, member in _members(value):
            yield f"#### `{value.__name__}.{name}`"
            yield _described(name, member)


def _described(name: str, value: Any) -> str:
    text = inspect.getdoc(value.fget if isinstance(value, property) else value) or ""
    first = f"{name}{_signature(value)}"
    return f"```text\n{first}\n\n{text}\n```" if text else f"```text\n{first}\n```"


def _signature(value: Any) -> str:
    if isinstance(value, property):
        return ""
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    text = str(signature).replace("'", "")
    if len(text) < 100:
        return text
    parameters = ",\n    ".join(_parameters(signature))
    result = "" if signature.return_annotation is inspect.Signature.empty else f" -> {signature.return_annotation}"
    return f"(\n    {parameters},\n){result}".replace("'", "")


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            star = True
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        yield str(parameter)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class itself defines and describes."""
    for name, member in vars(kind).items():
        member = getattr(member, "__func__", member)
        member = getattr(member, "func", member)  # cached_property
        described: Callable[..., Any] | None = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(described) and inspect.getdoc(described):
            yield name, member


def _docstring(module: ModuleType) -> str:
    return f"```text\n{inspect.getdoc(module) or ''}\n```"


def _shortened(value: Any) -> str:
    if isinstance(value, dict):
        return "a table of: " + ", ".join(map(str, value))
    return repr(value)


PAGES = {"commands.md": commands_page, "reference.md": reference_page}


def main() -> int:
    for name, page in PAGES.items():
        path, text = ROOT / "docs" / name, page()
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"updated docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
