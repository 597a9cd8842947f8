"""Figures show the numbers they were given, and say what is missing where matplotlib is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from receptance import plots
from receptance.errors import MissingExtraError

COSTS = {
    "RWKV": [(1_000, 1e-3, 2_000_000), (100_000, 1.1e-3, 2_000_000)],
    "Transformer": [(1_000, 1e-3, 6_000_000), (100_000, 40e-3, 600_000_000)],
}


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    pytest.importorskip("matplotlib")


def test_the_panels_hold_the_numbers_with_their_units() -> None:
    _, (learning, seconds, memory) = plots.figure(columns=3)
    plots.loss_curve(learning, [10, 20, 30], [8.0, 4.0, 2.0], held_out=2.5)
    plots.time_against_context(seconds, COSTS)
    plots.memory_against_context(memory, COSTS)
    assert list(learning.lines[0].get_ydata()) == [8.0, 4.0, 2.0]
    assert list(learning.lines[2].get_ydata()) == [2.5, 2.5]
    assert list(seconds.lines[1].get_ydata()) == [1.0, 40.0]
    assert list(seconds.lines[1].get_xdata()) == list(memory.lines[1].get_xdata()) == [1_000, 100_000]
    assert list(memory.lines[0].get_ydata()) == [2.0, 2.0]
    assert [axes.get_ylabel() for axes in (learning, seconds, memory)] == ["bits per byte", "milliseconds", "megabytes"]
    assert [text.get_text() for text in memory.get_legend().get_texts()] == ["RWKV", "Transformer"]


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_ending_chooses_the_format(tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"plot.{ending}"
    plots.quickstart(path, [10, 20], [8.0, 4.0], None, COSTS)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_smoothing_is_a_running_mean() -> None:
    assert plots.smoothed([4.0, 2.0, 0.0, 2.0], share=0.5) == [4.0, 3.0, 1.0, 1.0]
    assert plots.smoothed([1.0, 2.0]) == [1.0, 2.0]
    assert plots.smoothed([]) == []


@pytest.mark.parametrize(("value", "label"), [(0, "0"), (500, "500"), (1_000, "1k"), (2_500_000, "2.5M")])
def test_tick_labels(value: float, label: str) -> None:
    assert plots._thousands(value, None) == label


def test_without_matplotlib_one_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'receptance\[plots\]'"):
        plots.quickstart(tmp_path / "plot.png", [], [], None, {})
    assert list(tmp_path.iterdir()) == []
