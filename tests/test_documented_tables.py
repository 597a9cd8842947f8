"""Tables in the documentation that repeat facts of the source: they must say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from receptance.cli.chat_commands import COMMANDS
from receptance.generation import PRESETS, Sampling

from .conftest import ROOT


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = ("\n" + (ROOT / "docs" / page).read_text("utf-8")).partition(f"\n{heading}\n")[2]
    lines = section.partition("\n|")[2].partition("\n\n")[0].splitlines()
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_presets() -> None:
    names = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "penalty_decay")
    told = {name.strip("`"): tuple(map(float, numbers)) for name, *numbers, _ in rows("sampling.md", "## Presets")}
    assert told == {name: tuple(getattr(preset, field) for field in names) for name, preset in PRESETS.items()}


def test_the_settings() -> None:
    told = [name.strip("`") for name, *_ in rows("sampling.md", "# How tokens are chosen")]
    assert sorted(told) == sorted(field.name for field in fields(Sampling))


def test_the_commands_of_the_chat() -> None:
    told = [cell for cell, *_ in rows("chat.md", "## In the terminal")]
    expected = [f"`/{name} {command.argument}".rstrip() + "`" for name, command in COMMANDS.items()]
    assert ", ".join(told) == ", ".join(expected)
