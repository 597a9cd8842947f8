"""The generated pages are what the source says now, and every public name says what it is."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import typer.main

import receptance
from receptance.cli import app

from .conftest import ROOT
from .docstrings import as_markdown, first_sentence
from .update_reference import MODULES, PAGES, generated


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert generated(name) == (ROOT / "docs" / name).read_text("utf-8"), "run `make links`"


def test_every_command_and_option_is_on_its_page() -> None:
    page = generated("commands.md")
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        section = page.partition(f"\n## `receptance {name}`\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            names = parameter.opts if parameter.opts[0].startswith("-") else [parameter.metavar]
            for written in names:
                assert re.search(rf"\| `[^`]*{re.escape(written)}(?!\w)", section), f"{written} of {name}"


def modules_with_public_names() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(receptance.__path__, "receptance."):
        if not found.name.endswith("__main__"):
            module = import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


def test_every_public_name_has_a_docstring() -> None:
    for module in modules_with_public_names():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                # A dataclass without one gets its signature.
                described = (inspect.getdoc(value) or "").strip()
                assert described and not described.startswith(f"{name}("), f"{module.__name__}.{name} has no docstring"


def test_every_package_is_on_the_reference_page() -> None:
    packages = {module.__name__ for module in modules_with_public_names() if hasattr(module, "__path__")}
    assert packages - {"receptance.cli"} <= set(MODULES)


def test_docstrings_become_markdown() -> None:
    text = as_markdown("""\
Adds <a> and *b*.  Twice.

a [B]    the first,
         of two
ids_of_all_of_them
         the second
Raises nothing.

add(1, 2)              # 3

add(2, 3)

Letters:
    B rows   T time

* one
* two, and
  more
""")
    assert text.split("\n\n") == [
        "Adds \\<a> and \\*b\\*. Twice.",
        "- `a [B]`: the first, of two\n- `ids_of_all_of_them`: the second",
        "Raises nothing.",
        "```py\nadd(1, 2)              # 3",
        "add(2, 3)\n```",
        "Letters:",
        "```text\nB rows   T time\n```",
        "- one\n- two, and more",
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [("One thing. Another.", "One thing."), ("One: two\nthings.\n\nMore.", "One: two things."), ("One", "One")],
)
def test_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text) == first
