"""`make acceptance PART=fresh_clone`: what a newcomer does, in a clone of what is committed.

Set-up is not counted: it is mostly the download of PyTorch.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs_pages import blocks, commands

MINUTE = 60


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "receptance"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    make(folder, "setup")
    return folder


def environment() -> dict[str, str]:
    """Without the outer make's variables and this test's workers, which a newcomer does not have."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}


def make(folder: Path, target: str) -> float:
    start = time.perf_counter()
    subprocess.run(["make", target], cwd=folder, env=environment(), check=True)
    return time.perf_counter() - start


# What needs a connection, and what the other tests of this file run.
LEFT_OUT = re.compile(r"rwkv7-|make (test|lint|acceptance)")
# What is said where the page starts a conversation.
SAID = "my name is Ada\\nwhat is my name?\\n/undo\\n"


def test_the_readme_command_by_command(clone: Path) -> None:
    """Also the long ones, for which the ordinary tests take something short."""
    page = (clone / "README.md").read_text("utf-8")
    script, python = ["set -e"], []
    for block in blocks(page):
        if block.language == "python":
            python.append(block.text)
        elif block.language in ("sh", "console"):
            lines = [command.text for command in commands(block) if not LEFT_OUT.search(command.text)]
            script += [f"printf '{SAID}' | {line}" if line.startswith("receptance chat") else line for line in lines]
    script.append("python - <<'END'\n" + "\n".join(python) + "\nEND")
    assert any("make quickstart" in line for line in script) and any("train_a_chat" in line for line in script)
    start = time.perf_counter()
    done = subprocess.run(
        ["bash", "-xc", "\n".join(script)], cwd=clone, env=environment(), capture_output=True, text=True
    )
    print(done.stdout, done.stderr, f"\nthe README: {time.perf_counter() - start:.0f} s", sep="\n")
    assert done.returncode == 0
    assert "Your name is Ada." in done.stdout


def test_quickstart_takes_under_four_minutes(clone: Path) -> None:
    took = make(clone, "quickstart")
    print(f"\nmake quickstart: {took:.0f} s")
    assert took < 4 * MINUTE
    assert {"model.pth", "plot.png"} <= {path.name for path in (clone / "quickstart").iterdir()}


def test_tests_take_under_ten_minutes(clone: Path) -> None:
    took = make(clone, "test")
    print(f"\nmake test: {took:.0f} s")
    assert took < 10 * MINUTE


def test_lint_passes(clone: Path) -> None:
    make(clone, "lint")


def test_the_clone_is_left_clean(clone: Path) -> None:
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""
