"""A request on its way through the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from ..generation import Sampler
from .cache import Cuts, Place
from .request import EndReason, Listener, Request
from .speculation import Guesses


@dataclass(eq=False)
class Task:
    """What is known of a request.

    place           how far its prompt was read
    num_cached      tokens of the prompt that were known
    slot            where its state is, once it runs
    tokens          what was chosen; the state has read all but the last one
    logits          what the first token is chosen from, [1, V], until it is
    sampler         its own, where it speculates; the others share one
    is_cancelled    whether it is to end before the next step
    over            why it ends, once it does, and the error that it ends with
    """

    number: int
    request: Request
    listener: Listener
    place: Place
    cuts: Cuts
    num_cached: int = 0
    slot: int | None = None
    tokens: list[int] = field(default_factory=list)
    logits: Tensor | None = None
    sampler: Sampler | None = None
    guesses: Guesses | None = None
    is_cancelled: bool = False
    over: EndReason | None = None
    error: str = ""
    submitted: float = field(default_factory=time.monotonic)

    @property
    def priority(self) -> int:
        """See `Request`."""
        return self.request.priority

    @property
    def owner(self) -> str:
        """See `Request`."""
        return self.request.owner

    @property
    def is_late(self) -> bool:
        """Whether its deadline is over."""
        deadline = self.request.deadline
        return deadline is not None and time.monotonic() - self.submitted > deadline
