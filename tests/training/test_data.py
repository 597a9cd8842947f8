"""Which bytes are learned from, which are measured on, and in what pieces."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
import torch

from receptance.errors import DataError
from receptance.training.data import ByteCorpus, ByteText, held_out


def text_of(data: bytes) -> ByteText:
    return ByteText(torch.frombuffer(bytearray(data), dtype=torch.uint8), 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        place = tmp_path / ("tests" if number % 10 == 9 else f"part{number % 3}")
        place.mkdir(exist_ok=True)
        (place / f"file{number}.py").write_bytes(b"<%d>" % number)
    (tmp_path / "notes.md").write_bytes(b"not code")
    return tmp_path


def test_every_wanted_file_is_in_exactly_one_part(folder: Path) -> None:
    corpus = ByteCorpus.read(folder, "**/*.py", without=["tests"], held_out_percent=20)
    train, measured = bytes(corpus.train.bytes.tolist()), bytes(corpus.held_out.bytes.tolist())
    for number in range(60):
        mark = b"\0<%d>\0" % number
        assert (mark in train) + (mark in measured) == (0 if number % 10 == 9 else 1)
    assert b"not code" not in train + measured
    assert corpus.train.num_files + corpus.held_out.num_files == 54


def test_the_split_depends_on_a_files_relative_path_alone(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = ByteCorpus.read(folder, "**/*.py", held_out_percent=20)
    (folder / "aaa.py").write_bytes(b"new")
    after = ByteCorpus.read(folder, "**/*.py", held_out_percent=20)
    for old, new in ((before.train, after.train), (before.held_out, after.held_out)):
        assert bytes(old.bytes.tolist())[1:] in bytes(new.bytes.tolist())
    assert held_out(PurePath("json/decoder.py"), 5) == held_out(PurePath("json/decoder.py"), 5)


def test_the_share_held_out_is_about_what_was_asked() -> None:
    share = sum(held_out(PurePath(f"file{number}"), 5) for number in range(4000)) / 4000
    assert 0.04 < share < 0.06


def test_the_split_is_fixed_for_ever() -> None:
    """A changed split would make every figure ever measured on held-out text incomparable."""
    kept = [number for number in range(60) if held_out(PurePath(f"file{number}.py"), 10)]
    assert kept == [0, 11, 24, 37, 50, 54]


def test_crops_are_pieces_of_the_text() -> None:
    data = bytes(range(200)) * 2
    crops = text_of(data).crops(50, 30, torch.Generator().manual_seed(0))
    assert crops.dtype == torch.int64 and crops.shape == (50, 30)
    assert all(bytes(row.tolist()) in data for row in crops)
    assert len({int(row[0]) for row in crops}) > 20
    again = text_of(data).crops(50, 30, torch.Generator().manual_seed(0))
    assert torch.equal(crops, again)


def test_a_crop_may_be_the_whole_text_and_no_more() -> None:
    text = text_of(b"abc")
    assert text.crops(2, 3, torch.Generator()).tolist() == [[97, 98, 99]] * 2
    with pytest.raises(DataError, match="3 bytes, fewer than one piece of 4"):
        text.crops(2, 4, torch.Generator())


@pytest.mark.parametrize(("total", "rows", "length"), [(101, 4, 7), (101, 1, 1000), (17, 16, 5), (100, 3, 1)])
def test_streams_cover_the_text_once_and_in_order(total: int, rows: int, length: int) -> None:
    text = text_of(bytes(range(total)))
    pairs = list(text.streams(rows, length))
    tokens, targets = (torch.cat(parts, 1) for parts in zip(*pairs, strict=True))
    steps = (total - 1) // rows
    assert tokens.flatten().tolist() == list(range(rows * steps))
    assert torch.equal(targets, tokens + 1)
    assert all(part.shape[1] <= length for part, _ in pairs)


def test_streams_stop_at_a_limit() -> None:
    text = text_of(bytes(range(200)))
    assert max(int(targets.max()) for _, targets in text.streams(2, 10, limit=51)) == 50
    with pytest.raises(DataError, match="ask for fewer rows"):
        list(text.streams(8, 10, limit=8))


def test_bad_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        ByteCorpus.read(tmp_path / "missing")
    with pytest.raises(DataError, match="has no file like"):
        ByteCorpus.read(tmp_path)
    with pytest.raises(DataError, match="has no file like"):
        (tmp_path / "one.py").write_bytes(b"x")
        ByteCorpus.read(tmp_path)
