"""How the learning rate moves while a model learns.

    schedule = Schedule(start=6e-4, end=6e-5)
    rate = schedule(step, progress)          # progress: the share of the training after the warm-up that is done

Official: RWKV-7 trains with "cosine" (RWKV-LM `RWKV-v7/train_temp/src/trainer.py`), RWKV-4 with a constant rate and
then "exponential" (`RWKV-v4neo/src/trainer.py`); both begin with a linear warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError

# From the share done, 0 to 1, to the rate, `start` to `end`.
SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "cosine": lambda start, end, done: end + (start - end) * (1 + math.cos(math.pi * done)) / 2,
    "exponential": lambda start, end, done: start * (end / start) ** done,
    "linear": lambda start, end, done: start + (end - start) * done,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A learning rate for every step.

    start, end      the rate after the warm-up and at the end
    shape           "cosine", "exponential" or "linear"
    constant        share of the progress during which the rate stays at `start`
    warmup_steps    steps over which a factor rises from `warmup_from` to 1

    Raises ConfigError where the numbers make no schedule.
    """

    start: float
    end: float
    shape: str = "cosine"
    constant: float = 0.0
    warmup_steps: int = 10
    warmup_from: float = 0.01

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"schedule {self.shape!r} is not one of {', '.join(SHAPES)}")
        if self.start < 0 or self.end < 0 or (self.shape == "exponential" and self.start * self.end == 0):
            raise ConfigError(f"learning rates {self.start} and {self.end} make no {self.shape} schedule; raise them")
        if not 0 <= self.constant < 1:
            raise ConfigError(f"constant is {self.constant}; it is a share of the training, 0 or more and below 1")

    def __call__(self, step: int, progress: float) -> float:
        """The rate of step 0, 1, 2, …; `progress` counts from the end of the warm-up, and is cut to 0 … 1."""
        moving = (progress - self.constant) / (1 - self.constant)
        rate = SHAPES[self.shape](self.start, self.end, min(1.0, max(0.0, moving)))
        if step < self.warmup_steps:
            rate *= self.warmup_from + (1 - self.warmup_from) * step / self.warmup_steps
        return rate
