"""`make acceptance PART=fresh_clone`: what a newcomer does, in a clone of what is committed.

Set-up is not counted: it is mostly the download of PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

MINUTE = 60


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "receptance"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    make(folder, "setup")
    return folder


def make(folder: Path, target: str) -> float:
    # The outer make's variables and this test's workers are not what a newcomer has.
    foreign = ("MAKE", "MFLAGS", "PYTEST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    start = time.perf_counter()
    subprocess.run(["make", target], cwd=folder, env=environment, check=True)
    return time.perf_counter() - start


def test_quickstart_takes_under_four_minutes(clone: Path) -> None:
    took = make(clone, "quickstart")
    print(f"\nmake quickstart: {took:.0f} s")
    assert took < 4 * MINUTE
    assert {"model.pth", "plot.png"} <= {path.name for path in (clone / "quickstart").iterdir()}


def test_tests_take_under_five_minutes(clone: Path) -> None:
    took = make(clone, "test")
    print(f"\nmake test: {took:.0f} s")
    assert took < 5 * MINUTE


def test_lint_passes(clone: Path) -> None:
    make(clone, "lint")


def test_the_clone_is_left_clean(clone: Path) -> None:
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""
