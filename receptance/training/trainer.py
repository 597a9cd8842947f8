"""The loop that trains a model.

    outcome = Trainer(model, text, recipe, on_step=live).train(save_to=path)

The model is any that has `features`, `head` and `param_groups`: an RWKV, or one of the baselines, which no checkpoint
holds and which are therefore trained with `save_to=None`.  Ctrl-C finishes the step, saves and returns; a second Ctrl-C
is an ordinary KeyboardInterrupt.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..checkpoints import check_destination, save_checkpoint
from ..data import Tokens
from ..devices import memory_in_use, multiplies
from ..errors import CheckpointError, TrainingError
from ..models import RWKV
from ..state import State
from .batches import Batch, Batches, in_parts
from .interrupts import stop_on_interrupt
from .learner import Learner, recompute_layers
from .parallel import Ranks, shared
from .recipe import Training
from .step import Outcome, Position, Step
from .validation import Measuring

log = logging.getLogger(__name__)
# Steps after which the usual length of the gradient is known.
KNOWN_AFTER = 20
# As many of the last steps are told of at the end.
MOST_STEPS = 100_000
# Of how many steps the speed is told.
RECENT = 20


class Keeper(Protocol):
    """What keeps a training on disk, in a folder."""

    @property
    def folder(self) -> Path:
        """Where."""

    def opened(self, trainer: Trainer) -> AbstractContextManager[None]:
        """Put the trainer where the last checkpoint left it, and keep what it does while it trains."""

    def after(self, trainer: Trainer, step: Step) -> None:
        """Keep what is to be kept after a step."""

    def finish(self, trainer: Trainer) -> None:
        """Keep what is to be kept at the end."""


class Trainer:
    """Trains `model` in place on `text`; calls `on_step` after every step.

    held_out   what is measured on, as often as the recipe says
    keeper     what keeps checkpoints and metrics, and from which the training goes on
    ranks      the processes that train together; None: this one alone
    initial    what makes the initial state, where that is learnt

    Raises DataError where the text is too short, ConfigError where the recipe does not fit the processes.
    """

    def __init__(
        self,
        model: Any,
        text: Tokens,
        recipe: Training,
        on_step: Callable[[Step], None] | None = None,
        *,
        held_out: Tokens | None = None,
        keeper: Keeper | None = None,
        ranks: Ranks | None = None,
        initial: nn.Module | None = None,
    ) -> None:
        self.model, self.text, self.recipe, self.on_step = model, text, recipe, on_step
        self.keeper = keeper
        self.ranks = ranks or Ranks(device=next(model.parameters()).device)
        self.batches = Batches(text, recipe.batch)
        self.rows = self.ranks.own(recipe.batch.rows)
        limit = recipe.watch.held_out_tokens
        self.held_out = None if held_out is None else Measuring(held_out, recipe.batch, limit, self.ranks)
        half = multiplies(torch.bfloat16, self.ranks.device)
        wanted = recipe.compute.precision
        self.precision = torch.bfloat16 if wanted == "bfloat16" or (wanted == "auto" and half) else torch.float32
        if recipe.compute.recompute:
            recompute_layers(model)
        learner = Learner(model, recipe.optim.l2wrap, initial)
        self.learner = shared(learner, recipe.compute, self.precision, self.ranks)
        self.optimizer = self._optimizer(learner)
        self.position, self.steps = Position(), deque[Step](maxlen=MOST_STEPS)
        self.state: State | None = None
        self._num_targets = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT + 1)
        self._started = time.perf_counter()

    def _optimizer(self, learner: Learner) -> torch.optim.AdamW:
        optim = self.recipe.optim
        groups = learner.param_groups(optim.lr, optim.weight_decay)
        fused = self.ranks.device.type in ("cpu", "cuda")
        return torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=fused)

    def train(self, save_to: Path | None = None) -> Outcome:
        """Trains until the schedule is done or Ctrl-C, then saves; with None nothing is saved.

        Raises, before the first step, CheckpointError where the model cannot be saved there, and DataError where the
        text has tokens that the model does not know; and TrainingError where too many steps in a row had to be skipped,
        after saving: the parameters are those from before the first of these steps.
        """
        if save_to:
            self.check_saving(save_to)
        for text in (self.text, *([self.held_out.batches.text] if self.held_out else [])):
            text.check_vocabulary(self.model.head.out_features)
        self.model.train()
        with self.keeper.opened(self) if self.keeper else nullcontext(), stop_on_interrupt() as stop:
            self._started = time.perf_counter() - self.position.seconds
            self._recent.append((self.position.tokens, self.position.seconds))
            while self.share < 1 and not self.is_stuck and not self.ranks.any(stop.is_set()):
                step = self._measured(self.train_step(self.batches(self.position.steps, self.rows)))
                self.steps.append(step)
                if self.keeper:
                    self.keeper.after(self, step)
                if self.on_step:
                    self.on_step(step)
            if self.keeper:
                self.keeper.finish(self)
            if save_to and self.ranks.is_first:
                save_checkpoint(self.model, save_to)
        self.model.eval()
        if self.is_stuck:
            raise TrainingError(self._advice(save_to))
        return Outcome(list(self.steps), interrupted=stop.is_set())

    def check_saving(self, path: Path) -> None:
        """Raises CheckpointError where the model cannot be saved there, so that no training is lost at its end."""
        if self.recipe.compute.parallel == "fsdp":
            raise CheckpointError("no process has a whole model with fsdp; leave save_to out, and convert a checkpoint")
        if not isinstance(self.model, RWKV):
            kind = type(self.model).__name__
            raise CheckpointError(f"no checkpoint holds a model of the kind {kind}, only an RWKV; leave save_to out")
        check_destination(path, self.model.config.version)

    @property
    def share(self) -> float:
        """How much of the training is done."""
        return self._share(self.position.steps, self.position.tokens)

    def _share(self, steps: int, tokens: int) -> float:
        schedule = self.recipe.schedule
        if schedule.seconds is not None:
            return self.position.seconds / schedule.seconds
        if schedule.tokens is not None:
            return tokens / schedule.tokens
        wanted = schedule.steps if schedule.steps is not None else (schedule.epochs or 0) * self.batches.epoch_steps
        return steps / wanted

    @property
    def is_stuck(self) -> bool:
        """Whether too many steps in a row were skipped for the next one to help."""
        return self.position.skipped_in_a_row >= self.recipe.optim.patience

    def train_step(self, batch: Batch) -> Step:
        """Goes down the clipped gradient of this process's part of a step once."""
        rate = self.set_learning_rate()
        self._set_seed()
        before = self.state
        loss, num_tokens = self.gradient(batch.to(self.ranks.device))
        norm = self.clipped_norm()
        trouble = self.trouble(loss, norm)
        if trouble:
            self.position.skip(num_tokens)
            # What was remembered may be what is wrong.
            self.state = before
            log.warning("step %d skipped: %s", self.position.steps - 1, trouble)
        else:
            self.optimizer.step()
            self.position.take(loss, norm, num_tokens)
        self.optimizer.zero_grad()
        return self._step(rate, loss, norm, trouble)

    def set_learning_rate(self) -> float:
        """Gives every group its multiple of the schedule's rate for the step to come."""
        position, schedule, batch = self.position, self.recipe.schedule, self.recipe.batch
        if position.steps <= schedule.warmup_steps:
            position.share_of_warmup = self.share
        after = self._share(position.steps + 1, position.tokens + batch.rows * batch.length)
        left = max(1 - position.share_of_warmup, 1e-9)
        progress = ((share - position.share_of_warmup) / left for share in (self.share, after))
        rate = self.recipe.optim.lr * schedule.factor(position.steps, *progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_multiple"]
        return rate

    def _set_seed(self) -> None:
        """Chance is a function of the step and the process too: nothing of it needs to be kept to go on."""
        text = f"{self.recipe.batch.seed} {self.position.steps} {self.ranks.rank}"
        torch.manual_seed(int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big"))

    def gradient(self, batch: Batch) -> tuple[float, int]:
        """Adds up the gradient of a step; its mean loss, and how many tokens were read, over all processes."""
        counts = self.ranks.total(torch.tensor([batch.num_targets, batch.num_tokens]))
        self._num_targets, num_tokens = int(counts[0]), int(counts[1])
        num_targets = max(1, self._num_targets)
        before = None if self.batches.order.begins(self.position.steps) else self.state
        parts = in_parts(batch, self.recipe.batch.rows_at_once, before)
        total, after = torch.zeros((), dtype=torch.float64), []
        for number, (part, state) in enumerate(parts, 1):
            with self._meeting(number == len(parts)):
                with self.products():
                    loss, rest = self.learner(part, state, num_targets, self.batches.carries)
                # Every engine takes the mean over the processes, and this is to be their sum.  Not under autocast:
                # what was computed in float32 has gradients in float32.
                torch.autograd.backward(loss * self.ranks.count)
            total += loss.detach().cpu()
            after.append(rest)
        self.state = State.stack(after) if self.batches.carries else None
        return self.ranks.total(total).item(), num_tokens

    def _meeting(self, is_last: bool) -> AbstractContextManager[Any]:
        """With DDP, processes exchange their gradients with the last part of a step only.

        With FSDP they do so with every part: no process has the memory for a whole gradient.
        """
        if isinstance(self.learner, nn.parallel.DistributedDataParallel) and not is_last:
            return self.learner.no_sync()
        return nullcontext()

    def clipped_norm(self) -> float:
        """Shortens the gradient to the recipe's length; how long it was."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm: Tensor = nn.utils.clip_grad_norm_(parameters, self.recipe.optim.clip)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def trouble(self, loss: float, norm: float) -> str:
        """What is wrong with a step; "" where nothing is."""
        if not self._num_targets:
            return "nothing in it is to be learnt; give longer pieces (batch.length), or other text"
        if not math.isfinite(loss + norm):
            return f"its loss ({loss:g}) or its gradient ({norm:g}) is not finite"
        times, usual = self.recipe.optim.explodes, self.position.usual_norm
        if times and self.position.num_taken >= KNOWN_AFTER and norm > times * usual > 0:
            return f"its gradient ({norm:g}) is {norm / usual:,.0f} times longer than usual"
        return ""

    def products(self) -> AbstractContextManager[Any]:
        """In what precision matrices are multiplied; FSDP casts the weights itself."""
        lower = self.precision != torch.float32 and self.recipe.compute.parallel != "fsdp"
        return torch.autocast(self.ranks.device.type, dtype=torch.bfloat16, enabled=lower)

    def _step(self, rate: float, loss: float, norm: float, trouble: str) -> Step:
        position = self.position
        position.seconds = self.ranks.agreed(time.perf_counter() - self._started)
        self._recent.append((position.tokens, position.seconds))
        (tokens, seconds), (tokens_now, now) = self._recent[0], self._recent[-1]
        return Step(
            number=position.steps - 1,
            tokens=position.tokens,
            seconds=position.seconds,
            share=self.share,
            learning_rate=rate,
            loss=loss,
            smooth_loss=position.smooth_loss,
            gradient_norm=norm,
            tokens_per_second=(tokens_now - tokens) / max(now - seconds, 1e-9),
            memory=memory_in_use(self.ranks.device),
            skipped=trouble,
        )

    def _measured(self, step: Step) -> Step:
        """With the loss on what is held out, where it is time for it."""
        watch = self.recipe.watch
        is_time = watch.held_out_every and (step.number + 1) % watch.held_out_every == 0
        if self.held_out is None or not (is_time or step.share >= 1):
            return step
        return replace(step, held_out=self.held_out.loss(self.learner, self.products))

    def _advice(self, save_to: Path | None) -> str:
        rate, why = self.recipe.optim.lr, self.steps[-1].skipped if self.steps else "it was so before"
        place = save_to or (self.keeper.folder if self.keeper else None)
        kept = f"; what was learned before that is in {place}" if place else ""
        return (
            f"{self.position.skipped_in_a_row} steps in a row were skipped, the last one as {why}; "
            f"where losses grew, lower the learning rate (it is {rate:g}) or train in float32{kept}"
        )
