"""In which order a training reads its windows: a function of the number of the sample, and of nothing else.

    order = Shuffled(tokens.starts, length=512, seed=1)
    order(0), order(1), ...            # where sample 0, 1, ... starts, and how many tokens it has

So a training that is resumed needs to know one number, and ranks that take sample numbers in turn read together what
one rank would read alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

# Samples of one epoch of the official trainer, by which it counts.
OFFICIAL_EPOCH = 40320


class Order(ABC):
    """Samples of up to length + 1 tokens out of a text: the inputs, and the token after each.

    starts      [D + 1]: where each document of the text starts, and last where the last one ends
    rows        how many samples a step takes

    num_windows how many samples make an epoch
    carries     whether a row's samples follow each other in the text, so that its state goes on
    ragged      whether samples differ in length
    Raises DataError where there is no such sample.
    """

    carries = False
    ragged = False

    def __init__(self, starts: NDArray[np.int64], length: int, seed: int = 0, rows: int = 1) -> None:
        self.num_tokens, self.length, self.seed, self.rows = int(starts[-1]), length, seed, rows
        self.num_windows = self._count(starts) if length > 0 else 0
        if self.num_windows < (rows if self.carries else 1):
            raise DataError(
                f"the data set has {self.num_tokens} tokens, too few for {rows} pieces of {length} and one more; "
                f"give more text, or ask for shorter pieces or fewer rows"
            )

    def _count(self, starts: NDArray[np.int64]) -> int:
        return (self.num_tokens - 1) // self.length

    def __call__(self, number: int) -> tuple[int, int]:
        """The first token of sample `number`, which counts on through all epochs, and how many tokens it has."""
        return self._start(number), self.length + 1

    @abstractmethod
    def _start(self, number: int) -> int: ...

    def begins(self, step: int) -> bool:
        """Whether the rows of a step are at their start, where no state goes on."""
        return True

    def _shuffled(self, number: int) -> int:
        """Which of the windows sample `number` is, where every epoch has all of them in another order."""
        epoch, place = divmod(number, self.num_windows)
        return _permuted(place, self.num_windows, _draw(self.seed, epoch))


class Random(Order):
    """Any place in the text, drawn anew for each sample."""

    def _start(self, number: int) -> int:
        return _draw(self.seed, number) % (self.num_tokens - self.length)


class Shuffled(Order):
    """Every window once an epoch, each epoch in another order."""

    def _start(self, number: int) -> int:
        return self._shuffled(number) * self.length


class Packed(Order):
    """Windows that begin where a document begins, with the token that ends the one before; each epoch in another order.

    The next window begins with the first document that was not read to its end; one that is longer than a window goes
    on in windows of its own.
    """

    def _count(self, starts: NDArray[np.int64]) -> int:
        self._starts = _packed(starts, self.length)
        return len(self._starts)

    def _start(self, number: int) -> int:
        return int(self._starts[self._shuffled(number)])


class Documents(Order):
    """A document for each sample, from its own first token on; one that is longer is several.

    Each epoch has another order.
    """

    ragged = True

    def _count(self, starts: NDArray[np.int64]) -> int:
        parts = [(start, end) for start, end in pairwise(starts.tolist()) if end - start > 1]
        pieces = [
            (place, min(end, place + self.length + 1))
            for start, end in parts
            for place in range(start, end - 1, self.length)
        ]
        self._pieces = np.array(pieces, np.int64).reshape(-1, 2)
        return len(pieces)

    def __call__(self, number: int) -> tuple[int, int]:
        start, end = self._pieces[self._shuffled(number)].tolist()
        return start, end - start

    def _start(self, number: int) -> int:
        return self(number)[0]


class InOrder(Order):
    """As many texts side by side as there are rows, each read from its start to its end, and then again.

    Sample `number` is the next window of row number % rows.
    """

    carries = True

    def _start(self, number: int) -> int:
        step, row = divmod(number, self.rows)
        windows = self.num_windows // self.rows
        return (row * windows + step % windows) * self.length

    def begins(self, step: int) -> bool:
        return step % (self.num_windows // self.rows) == 0


class MagicPrime(Order):
    """The official order (RWKV-LM, `train_temp/src/dataset.py`): cubes modulo a prime, which repeat nothing.

    The prime is the largest one of the form 3n + 2 that is at most the number of windows less 1.
    Raises DataError where that is not above nine tenths of it, as the official trainer does.
    """

    def __init__(self, starts: NDArray[np.int64], length: int, seed: int = 0, rows: int = 1) -> None:
        super().__init__(starts, length, seed, rows)
        windows = self.num_tokens // length
        self.prime = next((p for p in range(windows - 1, 1, -1) if p % 3 == 2 and _is_prime(p)), 0)
        if self.prime <= 0.9 * windows:
            raise DataError(
                f"the data set has {windows} pieces of {length} tokens, too few for the official order; "
                f"give more text, or another order"
            )
        self._factor = int(self.prime * ((5**0.5 - 1) / 2))

    def _start(self, number: int) -> int:
        # Python's own whole numbers: the cube does not fit into 64 bits.
        return self._factor * (number + 1) ** 3 % self.prime * self.length


ORDERS: dict[str, type[Order]] = {
    "random": Random,
    "shuffled": Shuffled,
    "packed": Packed,
    "documents": Documents,
    "in-order": InOrder,
    "magic-prime": MagicPrime,
}


def _packed(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where windows of length + 1 tokens start: with the token before a document, which ends the one before it."""
    last, ends = int(starts[-1]) - length - 1, starts[1:]
    found, place = [0], 0
    while place < last:
        unfinished = int(np.searchsorted(ends, place + length + 1, "right"))
        begin = int(starts[unfinished]) - 1
        # The last window is moved back, so that it is whole.
        place = min(last, begin if begin > place else place + length)
        found.append(place)
    return np.array(found if last >= 0 else [], np.int64)


def _draw(*numbers: int) -> int:
    """64 bits that depend on all of the numbers."""
    text = " ".join(map(str, numbers)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def _permuted(place: int, size: int, key: int) -> int:
    """Where a permutation of 0 to size - 1 puts a place, without a table: a Feistel network, walked until it fits."""
    half = max(1, (size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            left, right = right, left ^ (_draw(key, turn, right) & mask)
        place = left << half | right
        if place < size:
            return place


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
