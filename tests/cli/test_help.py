"""The help answers at once, names every command, and loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib

import pytest
from typer.testing import CliRunner

import receptance
from receptance.cli import COMMANDS, app

from ..conftest import ROOT

HELP = [sys.executable, "-m", "receptance", "--help"]
HEAVY = ("torch", "numpy", "numba", "transformers", "huggingface_hub", "matplotlib")


def test_help_names_every_command() -> None:
    printed = CliRunner().invoke(app, ["--help"]).stdout
    for name in COMMANDS:
        assert name.split()[0] in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert " ".join((COMMANDS[name].__doc__ or "").split("\n\n")[0].split())[:60] in " ".join(result.stdout.split())


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["quickstart", "--help"], ["--version"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "receptance", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "receptance" in loaded
    assert not loaded & set(HEAVY)


def test_help_answers_in_a_quarter_of_a_second() -> None:
    subprocess.run(HELP, capture_output=True, check=True)  # writes the byte code
    fastest = min(_seconds() for _ in range(8))
    assert fastest < 0.25


def _seconds() -> float:
    """The processor's time, which other work on the machine leaves alone; the clock's where only that is told."""
    clock, before = time.perf_counter(), os.times()
    subprocess.run(HELP, capture_output=True, check=True)
    clock, after = time.perf_counter() - clock, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used or clock


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"receptance {receptance.__version__}\n"


def test_module_and_command_are_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"receptance": "receptance.__main__:main"}
    result = subprocess.run([sys.executable, "-m", "receptance", "--version"], capture_output=True, text=True)
    assert result.stdout == f"receptance {receptance.__version__}\n"
