"""What each step of a training reads: a function of the step's number, and of nothing else.

    batches = Batches(text, Batching(rows=8, length=256))
    batches(0).tokens                       # [8, 256], and so on
    batches(0, range(4, 8)).tokens          # [4, 256]: the part of a second device

So a training that is resumed, or shared by several devices, reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import ORDERS, Tokens
from ..state import State
from .loss import IGNORED
from .recipe import Batching


class Batch(NamedTuple):
    """Rows to learn from.

    tokens [B, T] int64    the inputs
    targets [B, T] int64   the token after each; -100 where it is not to be learnt
    first [B, T] bool      tokens before which everything is forgotten; None: nowhere
    lengths [B] int64      tokens of each row that are real; None: all
    """

    tokens: Tensor
    targets: Tensor
    first: Tensor | None = None
    lengths: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor) -> Batch:
        """Every next token of `tokens` [B, T + 1] is to be learnt."""
        return cls(tokens[:, :-1], tokens[:, 1:])

    @property
    def num_tokens(self) -> int:
        """How many are read."""
        return self.tokens.numel() if self.lengths is None else int(self.lengths.sum())

    @property
    def num_targets(self) -> int:
        """How many are to be learnt."""
        return int((self.targets != IGNORED).sum())

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        first, lengths = (None if tensor is None else tensor.to(device) for tensor in self[2:])
        return Batch(self.tokens.to(device), self.targets.to(device), first, lengths)

    def cut(self, rows: int) -> list[Batch]:
        """Batches of so many rows each."""
        parts = [[None] * -(-len(self.tokens) // rows) if t is None else torch.split(t, rows) for t in self]
        return [Batch(*part) for part in zip(*parts, strict=True)]


def in_parts(batch: Batch, rows: int, state: State | None) -> list[tuple[Batch, State | None]]:
    """Parts of so many rows each (0: all), with what each goes on from."""
    parts = batch.cut(rows or len(batch.tokens))
    if len(parts) == 1 or state is None:
        return [(part, state) for part in parts]
    return [(part, state.rows(slice(rows * place, rows * (place + 1)))) for place, part in enumerate(parts)]


class Batches:
    """The batches of a training on `text`.

    carries        whether a row's state goes on from step to step
    epoch_steps    steps of an epoch; not always a whole number
    Raises DataError where the text is too short.
    """

    def __init__(self, text: Tokens, batching: Batching) -> None:
        self.text, self.batching = text, batching
        self.order = ORDERS[batching.order](text.starts, batching.length, batching.seed, batching.rows)
        self.carries = self.order.carries
        self.epoch_steps = self.order.num_windows / batching.rows

    def __call__(self, step: int, rows: range | None = None) -> Batch:
        """All rows of a step, or some of them."""
        rows = range(self.batching.rows) if rows is None else rows
        places = [self.order(step * self.batching.rows + row) for row in rows]
        sizes = [size for _, size in places]
        longest = max(sizes)
        made = np.zeros((len(places), longest), np.int64)
        learnt = np.zeros((len(places), longest), np.bool_)
        for row, (start, size) in enumerate(places):
            made[row, :size] = self.text.window(start, size)
            learnt[row, :size] = self.text.counted(start, size) if self.text.counts else True
        targets = np.where(learnt[:, 1:], made[:, 1:], IGNORED)
        return Batch(
            torch.from_numpy(made[:, :-1].copy()),
            torch.from_numpy(targets),
            torch.from_numpy(self._first(places, longest - 1)) if self.batching.apart else None,
            torch.tensor(sizes) - 1 if self.order.ragged else None,
        )

    def _first(self, places: Sequence[tuple[int, int]], length: int) -> NDArray[np.bool_]:
        made = np.zeros((len(places), length), np.bool_)
        for row, (start, size) in enumerate(places):
            made[row, : size - 1] = self.text.first(start, size - 1)
        return made
