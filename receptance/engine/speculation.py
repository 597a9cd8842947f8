"""Guesses at what comes next, which the model confirms several at a time.

    guesses = Guesses(LookUp(prompt))
    guess = guesses.next(tokens)                     # [] where nothing is likely enough
    guesses.confirmed(len(guess), num_confirmed)

A guess changes nothing but the time: the model reads all of it in one call, every token is chosen from its own logits
with its own noise, and what follows the first token that was guessed wrongly is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Tokens that must repeat for what followed them to be worth a guess, the longest first.
LENGTHS = (4, 3, 2)
# Tokens of the first guess and of the longest.
FIRST, MOST = 8, 64
# After wrong guesses, so many tokens are chosen without one, at most.
LONGEST_PAUSE = 32


class Drafter(Protocol):
    """Who guesses."""

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """What may follow the prompt and these tokens of the answer; at most so many."""


class LookUp:
    """What followed the last tokens when they stood in the text before."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._text: list[int] = []
        # Where each run of tokens ended last, and the time before.
        self._ends: dict[tuple[int, ...], int] = {}
        self._num_prompt = len(prompt)
        self._append(prompt)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """See `Drafter`."""
        self._append(tokens[len(self._text) - self._num_prompt : -1])
        text = [*self._text, *tokens[-1:]]
        for length in LENGTHS:
            end = self._ends.get(tuple(text[-length:]))
            if end is not None:
                # What follows there may go on into the guess itself, as in a repetition.
                guess: list[int] = []
                for place in range(end, end + most):
                    guess.append(text[place] if place < len(text) else guess[place - len(text)])
                return guess
        return []

    def _append(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._text.append(token)
            for length in LENGTHS:
                if len(self._text) >= length:
                    self._ends[tuple(self._text[-length:])] = len(self._text)


class Guesses:
    """How long the guesses of one answer are: longer as long as they come true, none for a while where they do not."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter, self._most = drafter, FIRST
        self._pause, self._failures = 0, 0

    def next(self, tokens: Sequence[int], most: int) -> list[int]:
        """A guess of at most so many tokens, or none."""
        if self._pause > 0:
            self._pause -= 1
            return []
        return self._drafter.guess(tokens, min(self._most, most)) if most > 0 else []

    def confirmed(self, num_guessed: int, num_confirmed: int) -> None:
        """How a guess ended."""
        if num_confirmed == num_guessed:
            self._most, self._failures = min(2 * self._most, MOST), 0
        elif num_confirmed:
            self._most, self._failures = max(FIRST, num_confirmed), 0
        else:
            self._most, self._failures = FIRST, self._failures + 1
            self._pause = min(2**self._failures, LONGEST_PAUSE)
