"""Tokens on disk in the official format, `NAME.bin` with `NAME.idx` beside it: documents one after the other.

    file = read_binidx("minipile")                         # minipile.bin and minipile.idx
    with BinidxWriter("mine", np.uint16) as writer:
        writer.add([72, 105, 0])                           # a document, with the token that ends it

The format is Megatron's MMIDIDX as RWKV-LM's `make_data.py` writes it: `.bin` holds plain tokens; `.idx` holds a magic
word, a version, the kind of number, and of every document its length and its place.  Where some tokens are not to be
learnt but only to be read, as a user's words, `NAME.counted` beside them has a byte for each: 1, or 0 for those.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..replacing import replacing

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
# The kinds of whole numbers, by the code that stands in the file.
DTYPES: dict[int, type[np.integer[Any]]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
# Ours: the official trainers know no such file and do not look for it.
COUNTED = ".counted"
CODES = {dtype: code for code, dtype in DTYPES.items()}
HEADER = struct.Struct("<9sQBQQ")


class TokenFile(NamedTuple):
    """One pair of files.

    tokens   [S], left in the file: the system reads what is used
    starts   [D + 1] int64: where each document starts, and last where the last one ends
    counted  [S] uint8: 1 for a token to learn, 0 for one to read only; None: all are to be learnt
    """

    tokens: NDArray[np.integer[Any]]
    starts: NDArray[np.int64]
    counted: NDArray[np.uint8] | None = None


def pair(path: str | Path) -> tuple[Path, Path]:
    """The .bin and the .idx that a path names, with either ending or none.  Raises DataError for one without a name."""
    path = Path(path)
    if not path.name:
        raise DataError(f"{path} is no name of a data set; give NAME for NAME.bin and NAME.idx")
    stem = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    return stem.with_name(f"{stem.name}.bin"), stem.with_name(f"{stem.name}.idx")


def read_binidx(path: str | Path) -> TokenFile:
    """A pair of files.  Raises DataError where one is missing, truncated, or not of this format."""
    data, index = pair(path)
    try:
        raw, size = index.read_bytes(), data.stat().st_size
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read {error.filename}: {reason}; a data set is a .bin with its .idx") from error
    dtype, lengths, pointers = _parse(index, raw)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if (pointers != starts[:-1] * dtype().itemsize).any():
        raise DataError(f"{index} has documents that do not follow each other; make the data set anew")
    if size != (wanted := starts[-1] * dtype().itemsize):
        raise DataError(f"{data} has {size} bytes and {index.name} speaks of {wanted}; copy both anew")
    tokens: NDArray[np.integer[Any]] = np.memmap(data, dtype, "r") if size else np.zeros(0, dtype)
    return TokenFile(tokens, starts, _read_counted(data.with_suffix(COUNTED), len(tokens)))


def _read_counted(path: Path, num_tokens: int) -> NDArray[np.uint8] | None:
    """Which tokens are to be learnt, where a file says so."""
    if not path.exists():
        return None
    if path.stat().st_size != num_tokens:
        raise DataError(f"{path} speaks of {path.stat().st_size} tokens and there are {num_tokens}; make both anew")
    return np.memmap(path, np.uint8, "r") if num_tokens else None


def _parse(index: Path, raw: bytes) -> tuple[type[np.integer[Any]], NDArray[np.int32], NDArray[np.int64]]:
    """The kind of number, the lengths of the documents in tokens, and their places in bytes."""
    if len(raw) < HEADER.size or not raw.startswith(MAGIC):
        raise DataError(f"{index} is no index of tokens, it does not begin with MMIDIDX; give the .idx of a pair")
    _, version, code, num_pieces, num_bounds = HEADER.unpack_from(raw)
    if version != VERSION or code not in DTYPES:
        raise DataError(f"{index} has version {version} and numbers of kind {code}, which nobody can train on")
    if len(raw) != HEADER.size + 12 * num_pieces + 8 * num_bounds:
        raise DataError(f"{index} is truncated or damaged: {len(raw)} bytes for {num_pieces} documents; copy it anew")
    lengths = np.frombuffer(raw, "<i4", num_pieces, HEADER.size)
    pointers = np.frombuffer(raw, "<i8", num_pieces, HEADER.size + 4 * num_pieces)
    if (lengths < 0).any():
        raise DataError(f"{index} is damaged: a document has {lengths.min()} tokens; copy it anew")
    return DTYPES[code], lengths, pointers


class BinidxWriter:
    """Writes documents to a pair of files, which appear when the block ends without an error."""

    def __init__(self, path: str | Path, dtype: type[np.integer[Any]]) -> None:
        self.data, self.index = pair(path)
        self.dtype = np.dtype(dtype)
        self._lengths: list[int] = []
        self._counted: list[NDArray[np.uint8]] | None = None
        self._replacing = replacing(self.data)
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        self._file = self._replacing.__enter__().open("wb")
        return self

    @property
    def num_documents(self) -> int:
        """How many were added so far."""
        return len(self._lengths)

    def add(self, document: Sequence[int] | NDArray[Any], counted: NDArray[np.bool_] | None = None) -> None:
        """Append the tokens of a document, and which of them are to be learnt (None: all).

        Raises DataError for one that the kind of number cannot hold.
        """
        tokens = np.asarray(document)
        limits = np.iinfo(self.dtype)
        if tokens.size and (tokens.min() < limits.min or tokens.max() > limits.max):
            raise DataError(f"a token lies outside of {limits.min} to {limits.max}; choose a wider kind of number")
        self._file.write(tokens.astype(self.dtype.newbyteorder("<")).tobytes())
        if counted is not None and self._counted is None:
            self._counted = [np.ones(length, np.uint8) for length in self._lengths]
        if self._counted is not None:
            self._counted.append(np.ones(len(tokens), np.uint8) if counted is None else counted.astype(np.uint8))
        self._lengths.append(len(tokens))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            # The index last: it never speaks of what is not there.
            with replacing(self.index) as partial:
                partial.write_bytes(self._header())
                self._finish_counted()
                self._replacing.__exit__(None, None, None)
        else:
            self._replacing.__exit__(kind, error, trace)

    def _finish_counted(self) -> None:
        path = self.data.with_suffix(COUNTED)
        if self._counted is None:
            # Of tokens that lay here before.
            path.unlink(missing_ok=True)
            return
        with replacing(path) as partial:
            partial.write_bytes(np.concatenate(self._counted).tobytes())

    def _header(self) -> bytes:
        lengths = np.array(self._lengths, "<i4")
        places = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[:-1] * self.dtype.itemsize
        bounds = np.arange(len(lengths) + 1)
        header = HEADER.pack(MAGIC, VERSION, CODES[self.dtype.type], len(lengths), len(bounds))
        return header + lengths.tobytes() + places.astype("<i8").tobytes() + bounds.astype("<i8").tobytes()
