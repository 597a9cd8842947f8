"""All documents of a data set as one long text of tokens, which stays on disk.

tokens = Tokens.open("minipile")               # minipile.bin with minipile.idx, or a folder of such pairs
tokens = Tokens.of([[72, 105, 0], [79, 107, 0]])       # or in memory
tokens.window(start=1000, length=513)          # [513] int64, out of one file or several
tokens.first(start=1000, length=512)           # [512] bool: where one document ends and the next begins
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .binidx import TokenFile, read_binidx

# Tokens that are looked at before a training begins: a second's work.
CHECKED = 2**28


class Tokens:
    """Files of tokens, read as if they were one.

    num_tokens, num_documents   of all files
    starts                      [D + 1] int64: where each document starts, and last where the last one ends
    """

    def __init__(self, files: Sequence[TokenFile]) -> None:
        """Raises DataError where there is no token at all."""
        self._files = [file.tokens for file in files]
        self._bounds = np.concatenate([[0], np.cumsum([len(tokens) for tokens in self._files], dtype=np.int64)])
        self.num_tokens = int(self._bounds[-1])
        if not self.num_tokens:
            raise DataError("the data set is empty; give one that has a document")
        begins = [file.starts[:-1] + bound for file, bound in zip(files, self._bounds[:-1], strict=True)]
        self.starts: NDArray[np.int64] = np.concatenate([*begins, [self.num_tokens]])
        self._counted = [file.counted for file in files]

    @classmethod
    def open(cls, path: str | Path) -> Tokens:
        """A pair of files, or all pairs of a folder in the order of their names.  Raises DataError as `read_binidx`."""
        path = Path(path)
        if not path.is_dir():
            return cls([read_binidx(path)])
        found = sorted(path.glob("*.idx"))
        if not found:
            raise DataError(f"{path} has no .idx; make a data set with `receptance data to-binidx`")
        return cls([read_binidx(index) for index in found])

    @classmethod
    def of(cls, documents: Iterable[Sequence[int] | NDArray[Any]]) -> Tokens:
        """Documents in memory, each with the token that ends it."""
        parts = [np.asarray(document) for document in documents]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)])
        return cls([TokenFile(np.concatenate(parts) if parts else np.zeros(0, np.uint8), starts)])

    @property
    def num_documents(self) -> int:
        return len(self.starts) - 1

    def largest(self, most: int | None = None) -> int:
        """The largest token, of the first `most` of each file (None: all)."""
        return max(int(tokens[:most].max()) for tokens in self._files if len(tokens))

    @property
    def counts(self) -> bool:
        """Whether some tokens are there to be read only and not to be learnt."""
        return any(counted is not None for counted in self._counted)

    def check_vocabulary(self, size: int) -> None:
        """Raises DataError where a token is none of a model that knows `size` of them; of large files reads a part."""
        if all(np.iinfo(tokens.dtype).max < size for tokens in self._files):
            return
        if (largest := self.largest(CHECKED)) >= size:
            raise DataError(
                f"the text has the token {largest:,} and the model knows only those below {size:,}; "
                f"build it with a larger vocab_size, or make the tokens with its own tokenizer"
            )

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """[length] int64: tokens from `start` on.  Raises DataError where there are not so many."""
        return self._taken(self._files, start, length, np.int64)

    def counted(self, start: int, length: int) -> NDArray[np.bool_]:
        """[length] bool: whether each token from `start` on is one to learn.  Raises DataError as `window`."""
        return self._taken(self._counted, start, length, np.bool_)

    def first(self, start: int, length: int) -> NDArray[np.bool_]:
        """[length] bool: whether each token from `start` on ends a document.  Raises DataError as `window`.

        It is the first that a model reads of the next one, as a new text begins with the id that ends texts.
        """
        self._check(start, length)
        made = np.zeros(length, np.bool_)
        low, high = np.searchsorted(self.starts[1:], (start + 1, start + length + 1))
        made[self.starts[low + 1 : high + 1] - 1 - start] = True
        return made

    def streams(
        self, rows: int, length: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The text in order, as `rows` long streams side by side: inputs and their successors, each [rows, T].

        T is `length`, less in the last pair.  Together they cover the first `limit` tokens (all if None) but for a
        remainder of fewer than `rows`; a model that carries its state from pair to pair reads each stream as one text.
        Raises DataError where the text has less than two tokens a row.
        """
        total = min(self.num_tokens, limit) if limit else self.num_tokens
        steps = (total - 1) // rows
        if steps < 1:
            raise DataError(f"a text of {total} tokens cannot be cut into {rows} streams; ask for fewer rows")
        for place in range(0, steps, length):
            size = min(length, steps - place)
            made = np.stack([self.window(row * steps + place, size + 1) for row in range(rows)])
            yield made[:, :-1], made[:, 1:]

    def _taken(self, files: Sequence[NDArray[Any] | None], start: int, length: int, dtype: Any) -> NDArray[Any]:
        """[length] values from `start` on; 1 where a file has none."""
        self._check(start, length)
        made = np.ones(length, dtype)
        number = int(np.searchsorted(self._bounds, start, "right")) - 1
        filled = 0
        while filled < length:
            size = min(length - filled, int(self._bounds[number + 1]) - start - filled)
            file = files[number]
            if file is not None:
                offset = start + filled - int(self._bounds[number])
                made[filled : filled + size] = file[offset : offset + size]
            filled, number = filled + size, number + 1
        return made

    def _check(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise DataError(
                f"tokens {start} to {start + length} were asked for and the data set has {self.num_tokens}; "
                f"give more text or ask for shorter pieces"
            )
