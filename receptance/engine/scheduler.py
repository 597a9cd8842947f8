"""Who is served next: pure bookkeeping, without tensors.

Sequences wait until a slot is free, are read piece by piece, and then run: every step continues all that run.  Each
step reads at most `budget` tokens of prompts, taking turns, so that a long prompt holds up nobody's answer for long.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the scheduler looks at."""

    @property
    def priority(self) -> int: ...

    @property
    def owner(self) -> str: ...


S = TypeVar("S", bound=Waiting)


class Scheduler(Generic[S]):
    """Sequences in one of three places, each in the order of arrival.

    waiting     for a slot
    reading     their prompt, a piece at a time
    running     being continued
    """

    def __init__(self, num_slots: int, budget: int) -> None:
        self.num_slots, self.budget = num_slots, budget
        self.waiting: list[S] = []
        self.reading: deque[S] = deque()
        self.running: list[S] = []

    def __iter__(self) -> Iterator[S]:
        yield from (*self.waiting, *self.reading, *self.running)

    def __len__(self) -> int:
        return len(self.waiting) + self.num_active

    @property
    def num_active(self) -> int:
        """Sequences that have a slot."""
        return len(self.reading) + len(self.running)

    def admit(self) -> list[S]:
        """Gives free slots to those that wait: by priority, then to owners with the fewest, then by arrival."""
        admitted: list[S] = []
        active = Counter(sequence.owner for sequence in (*self.reading, *self.running))
        while self.waiting and self.num_active < self.num_slots:
            chosen = min(self.waiting, key=lambda sequence: (-sequence.priority, active[sequence.owner]))
            self.waiting.remove(chosen)
            self.reading.append(chosen)
            active[chosen.owner] += 1
            admitted.append(chosen)
        return admitted

    def turns(self) -> Iterator[S]:
        """Those whose next piece is to be read in this step, one after the other.

        Whoever asks for the next one has called `read` for the one before.
        """
        self._left = self.budget
        while self.reading and self._left > 0:
            yield self.reading[0]

    def read(self, sequence: S, num_tokens: int, is_done: bool) -> None:
        """So many tokens of a sequence were read, whose turn it was."""
        assert self.reading[0] is sequence
        self._left -= num_tokens
        self.reading.rotate(-1)
        if is_done:
            self.reading.pop()
            self.running.append(sequence)

    def remove(self, sequence: S) -> None:
        """Wherever it is."""
        for place in (self.waiting, self.reading, self.running):
            if sequence in place:
                place.remove(sequence)
                return
