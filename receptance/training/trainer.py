"""The loop that trains a model on one machine.

    outcome = Trainer(model, corpus.train, recipe, on_step=live).train(save_to=path)

The model is any that has `features`, `head` and `param_groups`: an RWKV, or one of the baselines, which no checkpoint
holds and which are therefore trained with `save_to=None`.  Ctrl-C finishes the step, saves and returns; a second Ctrl-C
is an ordinary KeyboardInterrupt.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import check_destination, save_checkpoint
from ..devices import dtype_name, multiplies
from ..errors import CheckpointError, ConfigError, TrainingError
from ..models import RWKV
from .data import ByteText
from .loss import next_token_loss
from .schedule import Schedule

log = logging.getLogger(__name__)
PATIENCE = 50
# What matrices can be multiplied in: float16 would need its gradients scaled.
PRECISIONS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides how a model is trained, with the official values where they do not depend on its size.

    schedule        learning rate of every step
    rows, length    B and T of a batch
    seconds, tokens how long to train: exactly one of them
    weight_decay    of the matrices
    betas, eps      of AdamW.  1e-18 is far below float32's resolution beside any gradient that matters: a parameter
                    whose gradients are tiny still moves by the learning rate, as RWKV's small initial values need
    clip            largest norm of the whole gradient
    l2wrap          strength of L2Wrap, see `loss.py`
    seed            of the order of the data
    precision       of the matrix products, float32 or bfloat16; None: bfloat16 where the machine multiplies it fast

    Raises ConfigError where the numbers make no training.
    """

    schedule: Schedule
    rows: int
    length: int
    seconds: float | None = None
    tokens: int | None = None
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-18
    clip: float = 1.0
    l2wrap: float = 1e-4
    seed: int = 0
    precision: torch.dtype | None = None

    def __post_init__(self) -> None:
        budgets = [budget for budget in (self.seconds, self.tokens) if budget is not None]
        if len(budgets) != 1 or not 0 < budgets[0] < math.inf:
            given = f"seconds is {self.seconds} and tokens is {self.tokens}"
            raise ConfigError(f"{given}; set one of them, above 0 and finite")
        if self.precision is not None and self.precision not in PRECISIONS:
            choices = " and ".join(map(dtype_name, PRECISIONS))
            raise ConfigError(f"precision is {self.precision}; {choices} are possible, and None for the faster")
        if self.rows < 1 or self.length < 1:
            raise ConfigError(f"a batch of {self.rows} rows of {self.length} tokens is empty; both must be 1 or more")

    def share(self, seconds: float, tokens: int) -> float:
        """How much of the budget is used, 0 to 1 and a little beyond."""
        return tokens / self.tokens if self.tokens else seconds / (self.seconds or 1.0)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.  `seconds` and `tokens` count from the start of the training.

    `smooth_loss` is the mean of the recent losses.
    `skipped` is true where loss or gradient was not finite: the parameters were left alone.
    """

    number: int
    tokens: int
    seconds: float
    share: float
    learning_rate: float
    loss: float
    smooth_loss: float
    skipped: bool

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        return self.seconds * max(0.0, 1 / self.share - 1) if self.share else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished training: all its steps, and whether it was stopped by hand."""

    steps: list[Step]
    interrupted: bool

    @property
    def num_skipped(self) -> int:
        return sum(step.skipped for step in self.steps)


class Trainer:
    """Trains `model` in place on random pieces of `text`; calls `on_step` after every step."""

    def __init__(
        self, model: Any, text: ByteText, recipe: Recipe, on_step: Callable[[Step], None] | None = None
    ) -> None:
        self.model, self.text, self.recipe = model, text, recipe
        self.on_step = on_step
        self.device = next(model.parameters()).device
        half = multiplies(torch.bfloat16, self.device)
        self.precision = recipe.precision or (torch.bfloat16 if half else torch.float32)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        groups = model.param_groups(recipe.schedule.start, recipe.weight_decay)
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps, fused=fused)
        self.steps: list[Step] = []
        self.share_of_warmup = 0.0
        self.started = time.perf_counter()

    def train(self, save_to: Path | None = None) -> Outcome:
        """Trains until the budget is used or Ctrl-C, then saves; with None nothing is saved.

        Raises, before the first step, CheckpointError where the model cannot be saved there, and DataError where the
        text is too short or has bytes that are no tokens of the model; and TrainingError where the loss stays not
        finite, after saving: the parameters are those from before the first of these steps.
        """
        if save_to:
            self.check_saving(save_to)
        self.text.check_vocabulary(self.model.head.out_features)
        self.model.train()
        with stop_on_interrupt() as stop:
            self.started = time.perf_counter()
            while self.share < 1 and not stop.is_set() and not self.is_stuck:
                tokens = self.text.crops(self.recipe.rows, self.recipe.length + 1, self.generator)
                step = self.train_step(tokens.to(self.device))
                if self.on_step:
                    self.on_step(step)
            if save_to:
                save_checkpoint(self.model, save_to)
        self.model.eval()
        if self.is_stuck:
            kept = f"; what was learned before that is in {save_to}" if save_to else ""
            raise TrainingError(
                f"loss or gradient was not finite for {PATIENCE} steps in a row; lower the learning rate "
                f"(it is {self.steps[-1].learning_rate:g}) or train in float32{kept}"
            )
        return Outcome(self.steps, interrupted=stop.is_set())

    def check_saving(self, path: Path) -> None:
        """Raises CheckpointError where the model cannot be saved there, so that no training is lost at its end."""
        if not isinstance(self.model, RWKV):
            kind = type(self.model).__name__
            raise CheckpointError(f"no checkpoint holds a model of the kind {kind}, only an RWKV; leave save_to out")
        check_destination(path, self.model.config.version)

    @property
    def share(self) -> float:
        """How much of the budget is used."""
        return self.steps[-1].share if self.steps else 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether too many steps in a row were skipped for the next one to help."""
        return len(self.steps) >= PATIENCE and all(step.skipped for step in self.steps[-PATIENCE:])

    def train_step(self, tokens: Tensor) -> Step:
        """Predicts every next token of `tokens` [B, T + 1] and goes down the clipped gradient once."""
        rate = self.set_learning_rate()
        with self.products():
            x, _ = self.model.features(tokens[:, :-1])
            loss = next_token_loss(self.model.head, x, tokens[:, 1:], self.recipe.l2wrap)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        finite = bool((loss + norm).isfinite())
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return self.record(loss.item(), rate, x.shape[0] * x.shape[1], finite)

    def set_learning_rate(self) -> float:
        """Gives every group its multiple of the schedule's rate for the step to come."""
        if len(self.steps) <= self.recipe.schedule.warmup_steps:
            self.share_of_warmup = self.share
        progress = (self.share - self.share_of_warmup) / max(1 - self.share_of_warmup, 1e-9)
        rate = self.recipe.schedule(len(self.steps), progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_multiple", 1.0)
        return rate

    def products(self) -> AbstractContextManager[Any]:
        """In what precision matrices are multiplied."""
        lower = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision if lower else torch.bfloat16, enabled=lower)

    def record(self, loss: float, rate: float, num_tokens: int, finite: bool) -> Step:
        """Adds a step to the history."""
        number = len(self.steps)
        seconds = time.perf_counter() - self.started
        tokens = num_tokens + (self.steps[-1].tokens if self.steps else 0)
        before = self.steps[-1].smooth_loss if self.steps and math.isfinite(self.steps[-1].smooth_loss) else loss
        # A plain mean at first, then one over about the last 20 steps.
        weight = max(1 / (number + 1), 0.05)
        smooth = before + weight * (loss - before) if finite else before
        share = self.recipe.share(seconds, tokens)
        self.steps.append(Step(number, tokens, seconds, share, rate, loss, smooth, skipped=not finite))
        if not finite:
            log.warning("step %d skipped: its loss (%g) or its gradient is not finite", number, loss)
        return self.steps[-1]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event that is set; the second does what Ctrl-C did before.

    Only the main thread receives signals: elsewhere the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
