"""Real data sets of the official trainer are read exactly; what is written is read back; damaged files are told."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from receptance.data import BinidxWriter, Tokens, read_binidx
from receptance.errors import DataError

DOCUMENTS = [[5, 6, 7, 0], [1, 0], [0], [65535, 3, 0]]


def write(path: Path, documents: list[list[int]] = DOCUMENTS, dtype: type = np.uint16) -> Path:
    with BinidxWriter(path, dtype) as writer:
        for document in documents:
            writer.add(document)
    return path


@pytest.mark.parametrize(
    ("name", "documents", "tokens"), [("ttt", 101, 2619), ("openmose_default", 33, 39582)], ids=["ttt", "openmose"]
)
def test_real_data_sets_are_read_and_written_byte_for_byte(
    name: str, documents: int, tokens: int, tmp_path: Path, fixtures: Path
) -> None:
    stem = fixtures / "data" / "binidx" / f"{name}_text_document"
    file = read_binidx(stem)
    assert len(file.starts) - 1 == documents and len(file.tokens) == tokens
    with BinidxWriter(tmp_path / "again", file.tokens.dtype.type) as writer:
        for start, stop in zip(file.starts[:-1], file.starts[1:], strict=True):
            writer.add(file.tokens[start:stop])
    for ending in (".bin", ".idx"):
        assert (tmp_path / f"again{ending}").read_bytes() == Path(f"{stem}{ending}").read_bytes()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_what_is_written_is_read(dtype: type, tmp_path: Path) -> None:
    for name in ("x", "x.bin", "x.idx"):
        file = read_binidx(write(tmp_path / "x", dtype=dtype).with_name(name))
        assert file.tokens.dtype == dtype and file.tokens.tolist() == list(chain(*DOCUMENTS))
        assert file.starts.tolist() == [0, 4, 6, 7, 10]


def test_a_token_that_does_not_fit_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside of 0 to 65535"):
        write(tmp_path / "x", [[1], [65536]])
    assert not list(tmp_path.iterdir())


def test_an_interrupted_writer_leaves_the_old_files(tmp_path: Path) -> None:
    write(tmp_path / "x")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt), BinidxWriter(tmp_path / "x", np.uint16) as writer:
        writer.add([1, 2, 3])
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def _truncate(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def _patch(path: Path, place: int, value: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[place : place + len(value)] = value
    path.write_bytes(raw)


DAMAGE = {
    "no index": (lambda data, index: index.unlink(), "cannot read"),
    "no data": (lambda data, index: data.unlink(), "cannot read"),
    "short index": (lambda data, index: _truncate(index, 1), "truncated or damaged"),
    "empty index": (lambda data, index: index.write_bytes(b""), "no index of tokens"),
    "short data": (lambda data, index: _truncate(data, 2), "18 bytes and x.idx speaks of 20"),
    "foreign": (lambda data, index: index.write_bytes(b"PK\3\4" * 20), "does not begin with MMIDIDX"),
    "floats": (lambda data, index: _patch(index, 17, b"\6"), "numbers of kind 6"),
    "another version": (lambda data, index: _patch(index, 9, b"\2"), "version 2"),
    "too many documents": (lambda data, index: _patch(index, 18, b"\xff" * 7), "truncated or damaged"),
    "a negative length": (lambda data, index: _patch(index, 34, b"\xff" * 4), "-1 tokens"),
    "documents elsewhere": (lambda data, index: _patch(index, 34 + 4 * 4 + 8, b"\1"), "do not follow each other"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_told_in_one_sentence(damage: str, tmp_path: Path) -> None:
    write(tmp_path / "x")
    spoil, words = DAMAGE[damage]
    spoil(tmp_path / "x.bin", tmp_path / "x.idx")
    with pytest.raises(DataError, match=words) as caught:
        read_binidx(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_several_files_are_one_text(tmp_path: Path) -> None:
    write(tmp_path / "b", [[10, 11, 0], [12, 0]], np.int32)
    write(tmp_path / "a", [[1, 2, 0]])
    check_text_of_three(Tokens.open(tmp_path))


def test_documents_in_memory_are_such_a_text() -> None:
    check_text_of_three(Tokens.of([[1, 2, 0], np.array([10, 11, 0], np.uint8), [12, 0]]))
    with pytest.raises(DataError, match="is empty"):
        Tokens.of([])


def check_text_of_three(tokens: Tokens) -> None:
    assert (tokens.num_tokens, tokens.num_documents, tokens.largest()) == (8, 3, 12)
    assert tokens.window(0, 8).tolist() == [1, 2, 0, 10, 11, 0, 12, 0]
    assert tokens.window(2, 3).tolist() == [0, 10, 11] and tokens.window(8, 0).size == 0
    assert tokens.window(3, 2).dtype == np.int64
    assert tokens.starts.tolist() == [0, 3, 6, 8]
    assert tokens.first(0, 8).nonzero()[0].tolist() == [2, 5, 7]
    assert tokens.first(4, 3).nonzero()[0].tolist() == [1] and not tokens.first(3, 2).any()
    for start, length in [(-1, 2), (0, 9), (8, 1)]:
        with pytest.raises(DataError, match="the data set has 8"):
            tokens.window(start, length)


def test_a_folder_without_data_and_empty_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \.idx"):
        Tokens.open(tmp_path)
    write(tmp_path / "x", [])
    with pytest.raises(DataError, match="is empty"):
        Tokens.open(tmp_path / "x")


def test_tokens_to_be_read_only_are_kept_beside_the_pair(tmp_path: Path) -> None:
    with BinidxWriter(tmp_path / "b", np.uint16) as writer:
        writer.add([1, 2, 0])
        writer.add([3, 4, 0], np.array([False, True, True]))
        writer.add([5, 0])
    write(tmp_path / "a", [[6, 0]])
    tokens = Tokens.open(tmp_path)
    assert tokens.counts and tokens.counted(0, 10).tolist() == [True] * 5 + [False] + [True] * 4
    (tmp_path / "b.counted").write_bytes(b"\1" * 7)
    with pytest.raises(DataError, match="speaks of 7 tokens and there are 8"):
        Tokens.open(tmp_path)
    # Written anew without any such tokens, the file is gone with those that it was of.
    write(tmp_path / "b", [[1, 0]])
    assert not Tokens.open(tmp_path).counts and sorted(p.name for p in tmp_path.glob("b.*")) == ["b.bin", "b.idx"]


def test_streams_read_every_token_in_order() -> None:
    tokens = Tokens.of([list(range(1, 24))])
    pairs = list(tokens.streams(rows=2, length=4))
    assert [inputs.shape for inputs, _ in pairs] == [(2, 4), (2, 4), (2, 3)]
    rows = np.concatenate([inputs for inputs, _ in pairs], axis=1)
    assert rows.tolist() == [list(range(1, 12)), list(range(12, 23))]
    assert np.concatenate([targets for _, targets in pairs], axis=1).tolist() == (rows + 1).tolist()
    assert sum(inputs.size for inputs, _ in tokens.streams(2, 4, limit=9)) == 8
    with pytest.raises(DataError, match="cannot be cut into 30 streams"):
        next(tokens.streams(30, 4))
