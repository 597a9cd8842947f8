"""In which order a training reads its windows: a function of the number of the sample, and of nothing else.

    order = Shuffled(num_tokens, length=512, seed=1)
    order(0), order(1), ...            # where sample 0, 1, ... starts; it has length + 1 tokens

So a training that is resumed needs to know one number, and ranks that take sample numbers in turn read together what
one rank would read alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b

from ..errors import DataError

# Samples of one epoch of the official trainer, by which it counts.
OFFICIAL_EPOCH = 40320


class Order(ABC):
    """Windows of length + 1 tokens out of `num_tokens`: the inputs, and the token after each.

    carries    whether a row's samples follow each other in the text, so that its state goes on
    Raises DataError where there is no such window.
    """

    carries = False

    def __init__(self, num_tokens: int, length: int, seed: int = 0, rows: int = 1) -> None:
        self.num_tokens, self.length, self.seed, self.rows = num_tokens, length, seed, rows
        self.num_windows = (num_tokens - 1) // length if length > 0 else 0
        if self.num_windows < rows:
            raise DataError(
                f"the data set has {num_tokens} tokens, too few for {rows} pieces of {length} and one more; "
                f"give more text, or ask for shorter pieces or fewer rows"
            )

    @abstractmethod
    def __call__(self, number: int) -> int:
        """The first token of sample `number`, which counts on through all epochs."""


class Random(Order):
    """Any place in the text, drawn anew for each sample."""

    def __call__(self, number: int) -> int:
        return _draw(self.seed, number) % (self.num_tokens - self.length)


class Shuffled(Order):
    """Every window once an epoch, each epoch in another order."""

    def __call__(self, number: int) -> int:
        epoch, place = divmod(number, self.num_windows)
        return _permuted(place, self.num_windows, _draw(self.seed, epoch)) * self.length


class InOrder(Order):
    """As many texts side by side as there are rows, each read from its start to its end, and then again.

    Sample `number` is the next window of row number % rows.
    """

    carries = True

    def __call__(self, number: int) -> int:
        step, row = divmod(number, self.rows)
        windows = self.num_windows // self.rows
        return (row * windows + step % windows) * self.length

    def begins(self, step: int) -> bool:
        """Whether the rows are at their start, where no state goes on."""
        return step % (self.num_windows // self.rows) == 0


class MagicPrime(Order):
    """The official order (RWKV-LM, `train_temp/src/dataset.py`): cubes modulo a prime, which repeat nothing.

    The prime is the largest one of the form 3n + 2 that is at most the number of windows less 1.
    Raises DataError where that is not above nine tenths of it, as the official trainer does.
    """

    def __init__(self, num_tokens: int, length: int, seed: int = 0, rows: int = 1) -> None:
        super().__init__(num_tokens, length, seed, rows)
        windows = num_tokens // length
        self.prime = next((p for p in range(windows - 1, 1, -1) if p % 3 == 2 and _is_prime(p)), 0)
        if self.prime <= 0.9 * windows:
            raise DataError(
                f"the data set has {windows} pieces of {length} tokens, too few for the official order; "
                f"give more text, or another order"
            )
        self._factor = int(self.prime * ((5**0.5 - 1) / 2))

    def __call__(self, number: int) -> int:
        # Python's own whole numbers: the cube does not fit into 64 bits.
        return self._factor * (number + 1) ** 3 % self.prime * self.length


ORDERS: dict[str, type[Order]] = {
    "random": Random,
    "shuffled": Shuffled,
    "in-order": InOrder,
    "magic-prime": MagicPrime,
}


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
