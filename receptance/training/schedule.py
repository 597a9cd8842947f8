"""How long a training is, and how the learning rate moves meanwhile.

    schedule = Schedule(tokens=10_000_000, shape="cosine", end=0.1)
    rate = 6e-4 * schedule.factor(step, before, after)

Official: RWKV-7 trains with "cosine" (RWKV-LM `RWKV-v7/train_temp/src/trainer.py`), RWKV-4 with a constant rate and
then "exponential" (`RWKV-v4neo/src/trainer.py`); both begin with a linear warm-up.  "sqrt" is the end of the
warmup-stable-decay schedule (Hägele and others, 2405.18392).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

from pydantic import Field, model_validator

from .section import Section, suggested

# From the share done, 0 to 1, to the factor, 1 to `end`.
SHAPES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda end, done: end + (1 - end) * (1 + math.cos(math.pi * done)) / 2,
    "exponential": lambda end, done: end**done,
    "linear": lambda end, done: 1 + (end - 1) * done,
    "sqrt": lambda end, done: 1 + (end - 1) * math.sqrt(done),
}
# The official trainers count the step that is to come with these, so that the last one has the last rate.
COUNTED_AFTER = ("exponential", "linear")


class Schedule(Section):
    """`[schedule]`: how long, and how the learning rate moves meanwhile.

    tokens, steps, epochs, seconds
                  how long to train: exactly one of them
    shape         "cosine", "exponential", "linear" or "sqrt"
    end           the rate at the end, as a share of `optim.lr`
    constant      share of the training after the warm-up during which the rate stays; 0.8 with "sqrt" or "linear" is
                  what is called warmup-stable-decay
    warmup_steps  steps over which a factor rises from `warmup_from` to 1
    """

    section = "schedule"
    tokens: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)
    shape: str = "cosine"
    end: float = Field(default=0.1, ge=0, le=1)
    constant: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=10, ge=0)
    warmup_from: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = ("tokens", "steps", "epochs", "seconds")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"schedule has {' and '.join(given) or 'no end'}; give exactly one of {', '.join(names)}")
        if self.shape not in SHAPES:
            raise ValueError(f"schedule.shape is {self.shape!r}; {suggested(self.shape, SHAPES, 'give one of')}")
        if self.shape == "exponential" and not self.end:
            raise ValueError("schedule.end is 0, which no exponential curve reaches; give a share above 0")
        return self

    def factor(self, step: int, before: float, after: float) -> float:
        """The share of `optim.lr` for step 0, 1, 2, …

        before, after    the share of the training, from the end of the warm-up on, that is done before this step and
                         after it; cut to 0 … 1
        """
        progress = after if self.shape in COUNTED_AFTER else before
        moving = (progress - self.constant) / (1 - self.constant)
        factor = SHAPES[self.shape](self.end, min(1.0, max(0.0, moving)))
        if step < self.warmup_steps:
            factor *= self.warmup_from + (1 - self.warmup_from) * step / self.warmup_steps
        return factor
