"""Text as bytes, for training and for measuring.

    corpus = ByteCorpus.read(folder, pattern="**/*.py", without=("tests",))
    tokens = corpus.train.crops(rows=8, length=257, generator=generator)     # [8, 257], drawn at random
    for tokens, targets in corpus.held_out.streams(rows=8, length=256): ...  # in order, every byte once

A file belongs to the held-out part if the hash of its relative path says so: the same files on every machine and in
every run, whatever else lies in the folder.  Byte 0 stands before every file and after the last one; it is the token
with which the official models mark where a document ends and begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from torch import Tensor

from ..errors import DataError

DOCUMENT_END = 0


def held_out(path: PurePath, percent: float) -> bool:
    """Whether a file is kept from training, decided by its path relative to the corpus alone."""
    digest = hashlib.sha256(path.as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") < percent / 100 * 2**64


@dataclass(frozen=True, slots=True)
class ByteText:
    """One long text: its bytes [S] (uint8) and the number of files they came from."""

    bytes: Tensor
    num_files: int

    @property
    def num_bytes(self) -> int:
        return self.bytes.numel()

    def check_vocabulary(self, size: int) -> None:
        """Raises DataError where a byte of the text is no token of a model that knows `size` of them."""
        largest = int(self.bytes.max()) if self.num_bytes else -1
        if largest >= size:
            raise DataError(
                f"the text has the byte {largest}, but the model knows only the tokens below {size}; "
                f"build it with vocab_size=256"
            )

    def crops(self, rows: int, length: int, generator: torch.Generator) -> Tensor:
        """Pieces [rows, length] (int64) from random places.  Raises DataError if the text is shorter than one."""
        places = self.num_bytes - length + 1
        if places < 1:
            raise DataError(
                f"the text has {self.num_bytes} bytes, fewer than one piece of {length}; "
                f"give more files or ask for shorter pieces"
            )
        start = torch.randint(places, (rows, 1), generator=generator)
        return self.bytes[start + torch.arange(length)].long()

    def streams(self, rows: int, length: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The text in order, as `rows` long streams side by side: inputs and their successors, each [rows, T].

        T is `length`, less in the last pair.  Together they cover the first `limit` bytes (all if None) but for a
        remainder of fewer than `rows`; a model that carries its state from pair to pair reads each stream as one text.
        Raises DataError if the text has less than two bytes a row.
        """
        total = min(self.num_bytes, limit) if limit else self.num_bytes
        steps = (total - 1) // rows
        if steps < 1:
            raise DataError(f"a text of {total} bytes cannot be cut into {rows} streams; ask for fewer rows")
        start = torch.arange(rows)[:, None] * steps
        for first in range(0, steps, length):
            place = start + torch.arange(first, min(first + length, steps))
            yield self.bytes[place].long(), self.bytes[place + 1].long()


@dataclass(frozen=True, slots=True)
class ByteCorpus:
    """A text to learn from and a text to measure on."""

    train: ByteText
    held_out: ByteText

    @classmethod
    def read(
        cls, folder: Path, pattern: str = "**/*", without: Collection[str] = (), held_out_percent: float = 5.0
    ) -> ByteCorpus:
        """All files of `folder` that match `pattern` and lie in no folder named in `without`.

        Raises DataError where there is no such folder, a file cannot be read, or a part would be empty.
        """
        parts: dict[bool, list[bytes]] = {True: [], False: []}
        for relative in _files(folder, pattern, frozenset(without)):
            try:
                text = (folder / relative).read_bytes()
            except OSError as error:
                raise DataError(f"cannot read {folder / relative}: {error.strerror or error}") from error
            parts[held_out(relative, held_out_percent)].append(text)
        for name, texts in (("learn from", parts[False]), ("measure on", parts[True])):
            if not texts:
                raise DataError(f"{folder} has no file like {pattern} to {name}; give a folder with more files")
        return cls(train=_joined(parts[False]), held_out=_joined(parts[True]))


def _files(folder: Path, pattern: str, without: frozenset[str]) -> list[PurePath]:
    """Relative paths, in the order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the text")
    found = (path.relative_to(folder) for path in folder.glob(pattern) if path.is_file())
    return sorted((path for path in found if without.isdisjoint(path.parts[:-1])), key=PurePath.as_posix)


def _joined(texts: list[bytes]) -> ByteText:
    end = bytes([DOCUMENT_END])
    joined = bytearray(end + end.join(texts) + end)
    return ByteText(torch.frombuffer(joined, dtype=torch.uint8), len(texts))
