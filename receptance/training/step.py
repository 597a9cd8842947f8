"""What a training has done: one step of it, all of it, and where it stands."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

# The mean of recent values is a plain one at first, then one over about the last 20.
LEAST_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.  `number`, `tokens` and `seconds` count from the start of the training.

    share              how much of the training is done with it, 0 to 1 and a little beyond
    smooth_loss        mean of the recent losses
    gradient_norm      length of the gradient before it was clipped
    tokens_per_second  of the recent steps
    memory             bytes that this process, or its accelerator, uses
    skipped            why the parameters were left alone; "" where they were not
    held_out           loss on what is held out, where it was measured after this step
    """

    number: int
    tokens: int
    seconds: float
    share: float
    learning_rate: float
    loss: float
    smooth_loss: float
    gradient_norm: float
    tokens_per_second: float
    memory: int
    skipped: str = ""
    held_out: float | None = None

    @property
    def seconds_left(self) -> float:
        """At the pace so far."""
        return self.seconds * max(0.0, 1 / self.share - 1) if self.share else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: what is not finite, or was not measured, is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished training: the steps of this run, of a long one the last, and whether it was stopped by hand."""

    steps: list[Step]
    interrupted: bool

    @property
    def num_skipped(self) -> int:
        return sum(bool(step.skipped) for step in self.steps)


@dataclass(slots=True)
class Position:
    """Where a training stands, beside its parameters: what it needs to go on as if it had never stopped.

    steps, tokens, seconds
                      done so far
    smooth_loss       mean of the recent losses
    usual_norm        mean of the recent gradients' lengths
    share_of_warmup   how much of the budget the warm-up took
    num_skipped       steps that were skipped
    skipped_in_a_row  the last ones of them
    best              least loss on what is held out; None where it was never measured
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    smooth_loss: float = 0.0
    usual_norm: float = 0.0
    share_of_warmup: float = 0.0
    num_skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(**values)

    @property
    def num_taken(self) -> int:
        """Steps that were not skipped."""
        return self.steps - self.num_skipped

    def take(self, loss: float, norm: float, num_tokens: int) -> None:
        """Count a step that changed the parameters."""
        weight = max(1 / (self.num_taken + 1), LEAST_WEIGHT)
        self.smooth_loss += weight * (loss - self.smooth_loss)
        self.usual_norm += weight * (norm - self.usual_norm)
        self.skipped_in_a_row = 0
        self._count(num_tokens)

    def skip(self, num_tokens: int) -> None:
        """Count a step that did not."""
        self.num_skipped += 1
        self.skipped_in_a_row += 1
        self._count(num_tokens)

    def _count(self, num_tokens: int) -> None:
        self.steps += 1
        self.tokens += num_tokens
