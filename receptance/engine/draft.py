"""Guesses by a smaller model of the same vocabulary: what it would say itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..generation import read
from ..models import RWKV
from ..state import State
from .slots import Slots


class Draft:
    """The likeliest tokens by the smaller model, after all that is certain."""

    def __init__(self, model: RWKV, slots: Slots, prompt: Sequence[int]) -> None:
        """`slots` of the smaller model, of which the first is used; others may use it between two guesses."""
        self._model, self._slots, self._prompt = model, slots, list(prompt)
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
        # What follows is read by nobody but the guess: the state stays where it is.
        self._slots.write(0, self._state)
        while len(guess) < most:
            guess.append(int(self._slots.step(guess[-1:], [0]).argmax()))
        return guess
