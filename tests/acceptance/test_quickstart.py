"""`make acceptance PART=quickstart`: the command at full size, and what it must reach on two CPU cores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import receptance


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float, Path]:
    """What `receptance quickstart` printed, how many seconds it took, and the folder that it left."""
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, "-m", "receptance", "quickstart", "--out", str(folder)]
    start = time.perf_counter()
    result = subprocess.run(command, env=os.environ | {"COLUMNS": "160"}, stdout=subprocess.PIPE, text=True, check=True)
    took = time.perf_counter() - start
    print(f"\n{result.stdout}\n{took:.0f} s in all")
    return result.stdout, took, folder


def test_it_learns(run: tuple[str, float, Path]) -> None:
    found = re.search(r"Held out\s+([\d.]+) bits per byte", run[0])
    assert found is not None and float(found[1]) < 2.35


def test_it_takes_under_four_minutes(run: tuple[str, float, Path]) -> None:
    assert run[1] < 240


def test_a_token_costs_the_same_after_a_long_context(run: tuple[str, float, Path]) -> None:
    found = re.findall(r"RWKV-7, \S+\s+([\d,]+)\s+([\d.]+) ms", run[0])
    milliseconds = {context: float(value) for context, value in found}
    assert set(milliseconds) == {"1,000", "10,000", "100,000"}
    assert milliseconds["100,000"] < 1.5 * milliseconds["1,000"]


def test_it_leaves_a_model_and_a_figure(run: tuple[str, float, Path]) -> None:
    assert sorted(path.name for path in run[2].iterdir()) == ["model.pth", "plot.png"]
    assert receptance.load(run[2] / "model.pth").config.version == "7"
