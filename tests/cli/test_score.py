"""`receptance score`: the figures of the Python API, from a file or stdin, and one sentence where there are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import receptance
from receptance import Config
from receptance.checkpoints import save_checkpoint
from receptance.cli import app
from receptance.evaluation import Score

from ..models.cases import noisy

TEXT = "Ein Schwan, 北京 and 🦢. " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes, one of a vocabulary that nobody knows, and texts."""
    folder = tmp_path_factory.mktemp("score")
    config = Config(version="7", vocab_size=256, num_layers=2, dim=16, head_size=8)
    save_checkpoint(noisy(config, strength=0.1), folder / "bytes.pth")
    save_checkpoint(noisy(config.replace(vocab_size=300), strength=0.1), folder / "unknown.pth")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8", newline="")
    (folder / "empty.txt").touch()
    (folder / "latin1.txt").write_text("Schöner Schwan", encoding="latin1")
    return folder


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, arguments)], input=stdin)


def test_json_is_what_python_says(folder: Path) -> None:
    lm = receptance.load(folder / "bytes.pth")
    assert lm.tokenizer is not None
    expected = receptance.evaluation.score(lm.model, lm.tokenizer, folder / "text.txt")
    said = json.loads(run(folder / "bytes.pth", folder / "text.txt", "--json", "--piece", "33").stdout)
    assert said["tokens"] == said["bytes"] == expected.tokens == len(TEXT.encode())
    assert said["nats"] == pytest.approx(expected.nats, rel=1e-5)
    assert said["perplexity"] == pytest.approx(expected.perplexity, rel=1e-5)
    assert said["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)


def test_stdin_is_read_as_a_file_is(folder: Path) -> None:
    from_file = run(folder / "bytes.pth", folder / "text.txt").stdout.splitlines()
    from_stdin = run(folder / "bytes.pth", "-", stdin=TEXT.encode()).stdout.splitlines()
    assert [line.split()[0] for line in from_file] == ["perplexity", "bits", "text", "loss", "speed"]
    assert from_stdin[:-1] == from_file[:-1]


def test_a_dtype(folder: Path) -> None:
    exact = json.loads(run(folder / "bytes.pth", folder / "text.txt", "--json", "--dtype", "float64").stdout)
    rough = json.loads(run(folder / "bytes.pth", folder / "text.txt", "--json", "--dtype", "bfloat16").stdout)
    assert exact["nats"] != rough["nats"] == pytest.approx(exact["nats"], rel=0.02)


def test_a_tokenizer_can_be_named(folder: Path) -> None:
    given = run(folder / "unknown.pth", "-", "--tokenizer", "bytes", "--json", stdin=b"!!! 123")
    assert json.loads(given.stdout)["tokens"] == 7


REFUSALS = {
    "no tokenizer": (("unknown.pth", "text.txt"), "no tokenizer is known for"),
    "another's tokenizer": (("unknown.pth", "text.txt", "--tokenizer", "world"), "and the model 300"),
    "missing": (("bytes.pth", "absent.txt"), "absent.txt: no such file or directory"),
    "empty": (("bytes.pth", "empty.txt"), "the text is empty"),
    "no text": (("bytes.pth", "latin1.txt"), "latin1.txt is no UTF-8 text at byte 4"),
    "no model": (("absent.pth", "text.txt"), "there is no file or folder"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, folder: Path) -> None:
    arguments, words = REFUSALS[name]
    result = run(*(folder / argument if "." in argument else argument for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_what_was_read_until_ctrl_c_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        "perplexity 2.0000, bits per byte 1.0000": Score(tokens=1234, num_bytes=1234, nats=1234 * math.log(2)),
        # Marks between documents have no bytes.
        "perplexity 4.0000, bits per byte inf": Score(tokens=1234, nats=2468 * math.log(2)),
    }
    for words, found in scores.items():

        def stopped(*arguments: Any, found: Score = found) -> None:
            arguments[3](found)
            raise KeyboardInterrupt

        monkeypatch.setattr("receptance.evaluation.score", stopped)
        result = run(folder / "bytes.pth", folder / "text.txt")
        assert (result.exit_code, result.stdout) == (130, "")
        assert result.stderr == f"the first 1,234 tokens: {words}\nreceptance: stopped\n"
