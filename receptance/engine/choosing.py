"""The next tokens of many tasks at once: each by its own settings, within its own constraint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..generation import RowError, Sampler, logprobs_of
from .request import Chosen
from .task import Task

# A token, or why there is none.
Outcome = Chosen | InputError


class Choosing:
    """One sampler for all tasks that are continued together, which come and go."""

    def __init__(self, vocab_size: int, device: torch.device, uncounted: Tensor | None) -> None:
        self._vocab_size, self._device, self._uncounted = vocab_size, device, uncounted
        self._sampler: Sampler | None = None
        self._tasks: list[Task] = []

    def sampler_of(self, tasks: Sequence[Task]) -> Sampler:
        """A new one for these tasks."""
        settings, noises = [task.request.sampling for task in tasks], [task.request.noise for task in tasks]
        return Sampler(settings, self._vocab_size, noises, self._device, self._uncounted)

    def together(self, tasks: list[Task], logits: Tensor) -> list[Outcome]:
        """For all that go on and those that begin, which stand behind them; logits [B, V]."""
        going = set(tasks)
        if self._sampler is not None and not going.issuperset(self._tasks):
            self._sampler.keep([row for row, task in enumerate(self._tasks) if task in going])
            self._tasks = [task for task in self._tasks if task in going]
        new = tasks[len(self._tasks) :]
        if new and self._sampler is not None:
            self._sampler.join(self.sampler_of(new))
        elif new:
            self._sampler = self.sampler_of(new)
        self._tasks += new
        assert self._tasks == tasks
        return [] if self._sampler is None else choose(self._sampler, tasks, logits)


def choose(sampler: Sampler, tasks: list[Task], logits: Tensor) -> list[Outcome]:
    """One token for each row of a sampler, or why a row has none; such a row leaves the sampler at the next call."""
    asked = [task.request.num_logprobs for task in tasks]
    most = max((number for number in asked if number is not None), default=None)
    failed: dict[int, InputError] = {}
    allowed = _allowed(tasks, sampler, failed)
    while True:
        try:
            choice = sampler.choose(logits, most, allowed)
            break
        except RowError as error:
            # Any token will do for it: nobody will see it.
            failed[error.row] = error
            logits, allowed = logits.clone(), None if allowed is None else allowed.clone()
            logits[error.row] = 0.0
            if allowed is not None:
                allowed[error.row] = True
    if most is None:
        told = [Chosen(token) for token in choice.tokens.tolist()]
    else:
        known = zip(logprobs_of(choice), asked, strict=True)
        told = [
            Chosen(one.token) if number is None else Chosen(one.token, one.logprob, one.top[:number])
            for one, number in known
        ]
    return [failed.get(row, chosen) for row, chosen in enumerate(told)]


def _allowed(tasks: list[Task], sampler: Sampler, failed: dict[int, InputError]) -> Tensor | None:
    """What the constraints leave, [B, V] bool; one that cannot tell is put to `failed`."""
    if not any(task.request.constraint for task in tasks):
        return None
    allowed = torch.ones(len(tasks), sampler.vocab_size, dtype=torch.bool)
    for row, task in enumerate(tasks):
        if task.request.constraint is not None:
            try:
                allowed[row] = task.request.constraint.allowed()
            except InputError as error:
                failed[row] = error
    return allowed
