"""Guesses by a smaller model of the same vocabulary: what it would say itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..generation import read, stepper
from ..models import RWKV
from ..state import State


class Draft:
    """The likeliest tokens by the smaller model, after all that is certain."""

    def __init__(self, model: RWKV, prompt: Sequence[int]) -> None:
        self._model, self._prompt = model, list(prompt)
        # What it has read: the prompt and so many tokens of the answer.
        self._state: State | None = None
        self._num_read = 0

    @torch.no_grad()
    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """See `Drafter`."""
        unread = [*(self._prompt if self._state is None else ()), *tokens[self._num_read :]]
        logits, self._state = read(self._model, [unread], self._state)
        self._num_read = len(tokens)
        guess = [int(logits.argmax())]
        steps = stepper(self._model, self._state)
        while len(guess) < most:
            guess.append(int(steps.step(torch.tensor(guess[-1:], device=logits.device)).argmax()))
        return guess
