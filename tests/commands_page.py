"""docs/commands.md: arguments and options of every command, from the functions that are the commands.

Typer's own page of help depends on its version; what it is told does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from typer.models import ArgumentInfo

from receptance.cli import COMMANDS, app

from .docstrings import as_markdown, first_sentence


def commands_page() -> str:
    """The help of every command."""
    assert app.registered_callback is not None and app.registered_callback.callback is not None
    rows = [
        f"| [`{name}`](#receptance-{name.replace(' ', '-')}) | {first_sentence(_doc(command))} |"
        for name, command in COMMANDS.items()
    ]
    parts = [
        "# Commands",
        "What `receptance --help` and `receptance COMMAND --help` say.",
        "\n".join(["| command | |", "|---|---|", *rows]),
        *_tables(app.registered_callback.callback),
        "`receptance --install-completion` lets your shell complete it all. A model is given as a file, a folder, "
        "a repository of the hub, one file of it (`repo:file`), or a name that [`receptance models`](models.md) lists. "
        "Whatever is wrong is told in one sentence, and the exit code is 2.",
    ]
    for name, command in COMMANDS.items():
        taken = [option.usage for option in _options(command) if option.is_argument]
        usage = " ".join([f"receptance {name}", *taken, "[OPTIONS]"])
        parts += [f"## `receptance {name}`", f"```text\n{usage}\n```", as_markdown(_doc(command)), *_tables(command)]
    return "\n\n".join(parts) + "\n"


def _doc(described: Any) -> str:
    return inspect.getdoc(described) or ""


class Option:
    """An argument or option, from the parameter of a command's function."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self.kind, self.about = get_args(parameter.annotation)
        self.default, self.is_required = parameter.default, parameter.default is inspect.Parameter.empty
        self.is_argument = isinstance(self.about, ArgumentInfo)
        self.panel = self.about.rich_help_panel or "Arguments and options"
        self._name = parameter.name

    @property
    def usage(self) -> str:
        """An argument in the line of the command."""
        return str(self.about.metavar) if self.is_required else f"[{self.about.metavar}]"

    @property
    def names(self) -> str:
        """The option with its value, as it is typed."""
        if self.is_argument:
            return str(self.about.metavar)
        # Typer's first argument is a default value, or the first of the names.
        declared = [name for name in (self.about.default, *(self.about.param_decls or ())) if str(name)[:1] == "-"]
        usual = f"--{self._name.replace('_', '-')}"
        if self.default is True:
            usual += f" / --no-{usual[2:]}"
        return f"{', '.join(sorted(declared or [usual], key=len))} {self._value}".rstrip()

    @property
    def _value(self) -> str:
        kinds = [kind for kind in (get_args(self.kind) or (self.kind,)) if kind is not NoneType]
        kind = (get_args(kinds[0]) or kinds)[0]
        if self.about.metavar or kind is bool:
            return self.about.metavar or ""
        if issubclass(kind, Enum):
            return "|".join(member.value for member in kind)
        return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")

    @property
    def text(self) -> str:
        """What it does, with its default and the bounds of a number."""
        low, high = self.about.min, self.about.max
        said = [f"at least {low:g}"] if low is not None and high is None else []
        said += [f"{low:,} to {high:,}"] if low is not None and high is not None else []
        if self.kind is not bool and self.default not in (None, inspect.Parameter.empty):
            said.append(f"default {self.default:g}" if isinstance(self.default, float) else f"default {self.default}")
        return f"{self.about.help.removesuffix('.')}; {', '.join(said)}." if said else str(self.about.help)


def _options(command: Callable[..., None]) -> list[Option]:
    return [Option(parameter) for parameter in inspect.signature(command, eval_str=True).parameters.values()]


def _tables(command: Callable[..., None]) -> Iterator[str]:
    """Arguments and options, with a table for each heading of the help page."""
    panels: dict[str, list[str]] = {}
    for option in _options(command):
        name, text = (part.replace("|", r"\|") for part in (option.names, option.text))
        panels.setdefault(option.panel, []).append(f"| `{name}` | {text} |")
    for panel, rows in panels.items():
        yield "\n".join([f"| {panel} | |", "|---|---|", *rows])
