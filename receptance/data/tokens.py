"""All documents of a data set as one long text of tokens, which stays on disk.

tokens = Tokens.open("minipile")               # minipile.bin with minipile.idx, or a folder of such pairs
tokens.window(start=1000, length=513)          # [513] int64, out of one file or several
tokens.first(start=1000, length=512)           # [512] bool: where a document begins
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .binidx import TokenFile, read_binidx


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

    @property
    def num_documents(self) -> int:
        return len(self.starts) - 1

    def largest(self) -> int:
        """The largest token; reads everything once."""
        return max(int(tokens.max()) for tokens in self._files if len(tokens))

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """[length] int64: tokens from `start` on.  Raises DataError where there are not so many."""
        self._check(start, length)
        made = np.empty(length, np.int64)
        number = int(np.searchsorted(self._bounds, start, "right")) - 1
        filled = 0
        while filled < length:
            offset = start + filled - self._bounds[number]
            part: NDArray[Any] = self._files[number][offset : offset + length - filled]
            made[filled : filled + len(part)] = part
            filled, number = filled + len(part), number + 1
        return made

    def first(self, start: int, length: int) -> NDArray[np.bool_]:
        """[length] bool: whether a document begins at each token from `start` on.  Raises DataError as `window`."""
        self._check(start, length)
        made = np.zeros(length, np.bool_)
        low, high = np.searchsorted(self.starts[:-1], (start, start + length))
        made[self.starts[low:high] - start] = True
        return made

    def _check(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise DataError(
                f"tokens {start} to {start + length} were asked for and the data set has {self.num_tokens}; "
                f"give more text or ask for shorter pieces"
            )
