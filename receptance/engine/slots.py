"""Where the states of running sequences live: a pool, and one-token steps over any of its slots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import runtime
from ..errors import CompileError
from ..models import RWKV
from ..state import State


class Slots:
    """States of at most `num_slots` sequences.

    is_exact    whether a row's numbers are the same, to the bit, whichever rows are beside it
    """

    def __init__(self, model: RWKV, num_slots: int) -> None:
        self.num_slots, self._free = num_slots, list(reversed(range(num_slots)))
        self._step: runtime.Step | runtime.RecordedStep
        try:
            self._step, self.is_exact = runtime.compile(model, num_slots), True
        except CompileError:
            self._step, self.is_exact = runtime.record(model, num_slots), False
        # The compiled step is for as many rows as it is good at.
        self._most_rows = runtime.MOST_ROWS if self.is_exact else num_slots
        self._vocab_size = model.config.vocab_size

    def take(self, state: State) -> int:
        """A free slot, with this state (one row) in it."""
        slot = self._free.pop()
        self.write(slot, state)
        return slot

    def give_back(self, slot: int) -> None:
        """Somebody else may have it."""
        self._free.append(slot)

    def read(self, slot: int) -> State:
        """A copy of a state, one row."""
        return self._step.read([slot])

    def write(self, slot: int, state: State) -> None:
        """Put a state, one row, into a slot."""
        self._step.write([slot], state)

    def step(self, tokens: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Read one token in each of some slots -> logits [B, V], which the next step may overwrite."""
        most = self._most_rows
        if len(tokens) <= most:
            return self._step(torch.tensor(tokens), list(slots))
        groups = range(0, len(tokens), most)
        return torch.cat(
            [self._step(torch.tensor(tokens[at : at + most]), list(slots[at : at + most])).clone() for at in groups]
        )
