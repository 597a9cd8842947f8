"""The score of a text is what the model says of it, whatever the pieces, and does not need memory for the text."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from receptance import RWKV, Config, DataError, InputError, ops
from receptance.config import VERSIONS
from receptance.evaluation import Score, perplexity, score, text_pieces
from receptance.tokenizers import ByteTokenizer, Tokenizer, WorldTokenizer

from ..models.cases import noisy

TEXT = "Straße, 北京 and 🦢: " * 3 + "the end.\r\n"
DATA = TEXT.encode()


def bytes_model(version: str = "7", dtype: torch.dtype = torch.float64) -> RWKV:
    return noisy(Config(version=version, vocab_size=256, num_layers=2, dim=16, head_size=8), dtype)


def slow(model: RWKV, tokens: list[int]) -> float:
    """One token at a time through the time loop, its probability read off the whole distribution."""
    total, state, last = 0.0, None, 0
    with torch.no_grad(), ops.use("reference"):
        for token in tokens:
            logits, state = model(torch.tensor([[last]]), state)
            total -= float(logits[0, 0].double().softmax(0)[token].log())
            last = token
    return total


@pytest.mark.parametrize("version", VERSIONS)
def test_equals_the_sum_of_a_slow_reference(version: str) -> None:
    model = bytes_model(version)
    found = score(model, ByteTokenizer(), [TEXT], piece=50)
    assert (found.tokens, found.num_bytes) == (len(DATA), len(DATA))
    assert found.nats == pytest.approx(slow(model, list(DATA)), rel=1e-9)


def test_equals_the_sum_of_a_slow_reference_with_the_world_vocabulary(tmp_path: Path) -> None:
    model = noisy(Config(version="7", vocab_size=65536, num_layers=1, dim=32, head_size=16), torch.float32, 0.05)
    path = tmp_path / "text.txt"
    path.write_bytes(DATA)
    found = score(model, WorldTokenizer(), path)
    ids = WorldTokenizer().encode(TEXT)
    assert (found.tokens, found.num_bytes) == (len(ids), len(DATA)) and len(ids) < len(DATA)
    assert found.nats == pytest.approx(slow(model, ids), rel=1e-5)


@pytest.mark.parametrize("piece", [1, 7, len(DATA), 10_000])
def test_pieces_change_nothing(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The head's slices neither: 3 positions each.
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 3 * 256)
    model = bytes_model()
    whole = score(model, ByteTokenizer(), list(TEXT), piece=piece)
    assert whole.nats == pytest.approx(slow(model, list(DATA)), rel=1e-9)


def test_figures() -> None:
    found = Score(tokens=10, num_bytes=40, nats=10 * math.log(8), seconds=2.0)
    assert found.perplexity == pytest.approx(8)
    assert found.bits_per_byte == pytest.approx(30 / 40)
    assert found.tokens_per_second == 5
    assert Score(tokens=1, num_bytes=1, nats=1e6).perplexity == math.inf
    assert Score(tokens=1, num_bytes=0, nats=1.0).bits_per_byte == math.inf


def test_progress_ends_at_the_result() -> None:
    seen: list[Score] = []
    found = score(bytes_model(), ByteTokenizer(), [TEXT], seen.append, piece=25)
    assert [step.tokens for step in seen] == [*range(25, len(DATA), 25), len(DATA)]
    assert [step.num_bytes for step in seen] == [step.tokens for step in seen]
    assert seen[-1] == found
    assert all(early.nats < late.nats for early, late in pairwise(seen))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_a_character_may_lie_across_two_reads(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "READ_BYTES", size)
    assert "".join(text_pieces(io.BytesIO(DATA), "text")) == TEXT


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("broken", [b"ab\xffcd", b"ab\xe5\x8c"])
def test_what_is_no_utf8_is_told_with_its_place(broken: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "READ_BYTES", size)
    with pytest.raises(DataError, match="book is no UTF-8 text at byte 3"):
        list(text_pieces(io.BytesIO(broken), "book"))


def _file(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "text").write_bytes(content)
        return folder / "text"

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "absent", "cannot read .*absent: no such file"),
    "folder": (lambda folder: folder, "cannot read .*: is a directory"),
    "empty": (_file(b""), "the text is empty"),
    "no text": (_file(b"\x80"), "no UTF-8 text at byte 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_scored(name: str, tmp_path: Path) -> None:
    make, words = BAD[name]
    with pytest.raises(DataError, match=words) as error:
        score(bytes_model(), ByteTokenizer(), make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_loss_that_is_no_number() -> None:
    model = bytes_model(dtype=torch.bfloat16)
    with torch.no_grad():
        model.head.weight[:, 0] = math.nan
    with pytest.raises(InputError, match="the loss is nan within the first 9 tokens; try float32"):
        score(model, ByteTokenizer(), [TEXT], piece=9)


class Strange(ByteTokenizer):
    """Makes an id that a model of 256 does not know."""

    name = "strange"

    def encode(self, text: str) -> list[int]:
        return [300, *super().encode(text)]


@pytest.mark.parametrize(
    ("tokenizer", "source", "piece", "words"),
    [
        (Strange(), [TEXT], 10, "'strange' makes token 300 of this text and the model knows only 256"),
        (ByteTokenizer(), [TEXT], 0, "at least 1 token"),
        (ByteTokenizer(), ["a\ud800"], 10, "half of a surrogate pair"),
    ],
)
def test_calls_that_cannot_be_served(tokenizer: Tokenizer, source: list[str], piece: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score(bytes_model(), tokenizer, source, piece=piece)


MEMORY = """
import json, sys, torch
from pathlib import Path
from receptance import Config, build
from receptance.devices import memory_in_use
from receptance.evaluation import score
from receptance.tokenizers import open_tokenizer

torch.set_num_threads(1)
tokenizer = open_tokenizer(sys.argv[2])
config = Config(version="7", vocab_size=tokenizer.vocab_size, num_layers=1, dim=32, head_size=32)
seen = []

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

def watch(found):
    seen.append((found.tokens, anonymous_bytes(), memory_in_use()))

found = score(build(config).eval(), tokenizer, sys.argv[1], watch)
early = [held for held in seen if held[0] <= found.tokens / 5][-1]
grown = {"grown": seen[-1][1] - early[1], "resident": seen[-1][2] - early[2]}
print(json.dumps({"tokens": found.tokens, "bytes": found.num_bytes} | grown))
"""
MOST_GROWN = 12 * 2**20


def growth(path: Path, num_bytes: int, tokenizer: str) -> dict[str, int]:
    """Scores a text of `num_bytes` in a process of its own; says by how many bytes that grew after a fifth of it.

    "grown" is the memory that the process asked for; "resident" has also the pages of files such as PyTorch's code,
    which the system takes away and brings back as it likes.
    """
    line = "The black swan glides over the lake of 北京 when the long day {} is over.\n"
    with path.open("w", encoding="utf-8", newline="") as file:
        for number in range(num_bytes // len(line.encode())):
            file.write(line.format(number))
    command = [sys.executable, "-c", MEMORY, str(path), tokenizer]
    said: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert said["bytes"] == path.stat().st_size
    return said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    said = growth(tmp_path / "text.txt", 600_000, "bytes")
    # Of the later four fifths the logits would take 490 MB, the features 60 MB.
    assert said["tokens"] == said["bytes"] > 590_000
    assert max(said["grown"], said["resident"]) < MOST_GROWN
