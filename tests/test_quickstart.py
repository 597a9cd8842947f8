"""The quickstart at a shrunken size: it learns, shows all four demonstrations and leaves usable files."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console

import receptance
from receptance.config import Config
from receptance.data import Corpus, documents
from receptance.errors import DataError
from receptance.quickstart import PROMPT, SPEAKING, Plan, Summary, quickstart
from receptance.training import bits, mean_loss

from .conftest import ROOT

SMALL = Plan(
    config=Config(version="7", vocab_size=256, num_layers=2, dim=64, head_size=32),
    rows=4,
    length=64,
    measured_bytes=4_000,
    compared_tokens=100,
    spoken_bytes=80,
    contexts=(100, 1_000, 4_000),
)


@dataclass
class Run:
    folder: Path
    summary: Summary
    printed: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("quickstart") / "new" / "folder"
    console = Console(file=io.StringIO(), width=100)
    threads = torch.get_num_threads()
    # On a busy machine two threads that wait for each other are far slower than one, and the time is fixed.
    torch.set_num_threads(1)
    summary = quickstart(folder, seconds=4.0, console=console, plan=SMALL)
    torch.set_num_threads(threads)
    return Run(folder, summary, console.file.getvalue())  # type: ignore[attr-defined]


def test_it_learns(run: Run) -> None:
    steps = run.summary.outcome.steps
    assert bits(steps[0].loss) > 7
    # 4.9 bits is what the frequencies of the single bytes give: below it, the model uses the past.
    assert run.summary.held_out_bits < 4.7
    assert not run.summary.outcome.interrupted


def test_the_forms_agree(run: Run) -> None:
    for dtype, bound in (("float32", 1e-3), ("float64", 1e-9)):
        ways = run.summary.differences[dtype]
        assert {"chunked form, whole", "random pieces", "token by token"} <= set(ways)
        assert max(ways.values()) < bound
    assert all(way in run.printed for way in run.summary.differences["float32"])


def test_it_speaks(run: Run) -> None:
    assert run.summary.completion.startswith("def ")
    assert len(run.summary.completion) > 40
    assert run.summary.bytes_per_second > 0
    # What the model was given, not only what is shown of it.
    assert repr(PROMPT) in run.printed
    assert " ".join(run.summary.completion.split()[:2]) in " ".join(run.printed.split())


def test_a_token_costs_the_same_after_any_context(run: Run) -> None:
    rwkv, transformer = run.summary.costs.values()
    assert [cost.context for cost in rwkv] == [cost.context for cost in transformer] == [100, 1_000, 4_000]
    assert len({cost.state_bytes for cost in rwkv}) == 1
    assert [cost.state_bytes / cost.context for cost in transformer] == [2 * 2 * 64 * 4] * 3
    # Loose, for a busy machine: a cost that grew with the context would differ by 40.
    assert max(cost.seconds for cost in rwkv) < 5 * min(cost.seconds for cost in rwkv)


def test_it_leaves_a_model_and_a_figure(run: Run) -> None:
    assert sorted(path.name for path in run.folder.iterdir()) == ["model.pth", "plot.png"]
    assert run.folder.joinpath("plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    loaded = receptance.load(run.summary.model_path, dtype=torch.float32).model
    corpus = Corpus.of_bytes(documents("python:"))
    again = bits(mean_loss(loaded, corpus.held_out, limit=SMALL.measured_bytes))
    assert again == pytest.approx(run.summary.held_out_bits, abs=1e-5)


def test_it_says_what_to_try_next(run: Run) -> None:
    for command in ("receptance info", "receptance verify", "receptance convert"):
        assert f"{command} {run.summary.model_path}" in run.printed


def test_without_matplotlib_only_the_figure_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    console = Console(file=io.StringIO(), width=200)
    summary = quickstart(tmp_path, seconds=0.2, console=console, plan=SMALL)
    assert summary.plot_path is None
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert "The plot was left out: figures need matplotlib" in console.file.getvalue()  # type: ignore[attr-defined]


SCRIPT = """
import sys
from pathlib import Path
from tests.test_quickstart import SMALL
from receptance.quickstart import quickstart
quickstart(Path(sys.argv[1]), seconds=1000, plan=SMALL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one child only")
def test_ctrl_c_saves_and_goes_on_to_the_demonstrations(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-c", SCRIPT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = list(until(process.stdout, "step     0"))
        process.send_signal(signal.SIGINT)
        printed += process.stdout.readlines()
        assert process.wait(timeout=60) == 0
    text = "".join(printed)
    assert "Stopped by hand" in text and "4. Written" in text
    assert receptance.load(tmp_path / "model.pth").config == SMALL.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "plot.png"]


def until(lines: Iterator[str], mark: str) -> Iterator[str]:
    for line in lines:
        yield line
        if mark in line:
            return


def test_a_python_without_source_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "stdlib"))
    with pytest.raises(DataError, match="has no source in Python"):
        quickstart(tmp_path / "out", seconds=1.0, console=Console(file=io.StringIO()), plan=SMALL)


def test_it_says_the_same_again(run: Run) -> None:
    lm = receptance.load(run.summary.model_path)
    again = lm.generate(PROMPT, SMALL.spoken_bytes, sampling=SPEAKING, seed=SMALL.seed)
    assert PROMPT.lstrip() + again.text == run.summary.completion
