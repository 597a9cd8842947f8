"""The text of one row as its tokens come: whole characters, nothing that may belong to a stop, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..errors import InputError
from ..tokenizers import StopFinder, Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]


class Continuation:
    """What follows a prompt.

    tokens          all that were chosen, those of the stop too
    text            what is certain so far; it ends before the stop
    num_decoded     characters of all tokens, those that are held back too; None within a character
    finish_reason   None while it goes on; "stop": a stop or the end of the text; "length": `max_tokens`;
                    "cancelled": ended by the caller
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), max_tokens: int = 256) -> None:
        """Raises InputError for an empty stop and for a limit below 1."""
        if max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1, got {max_tokens}")
        self.tokens: list[int] = []
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self._max_tokens = max_tokens
        self._end_of_text = tokenizer.end_of_text
        self._num_characters = 0
        self._decoder = tokenizer.stream()
        self._finder = StopFinder(stops)

    @property
    def num_decoded(self) -> int | None:
        """See the class."""
        return None if self._decoder.is_unfinished else self._num_characters

    def push(self, token: int) -> str:
        """Takes the next token and returns the text that is certain now, which may be empty."""
        self.tokens.append(token)
        if token == self._end_of_text:
            return self.finish("stop")
        decoded = self._decoder.push(token)
        self._num_characters += len(decoded)
        text = self._finder.push(decoded)
        self.text += text
        if self._finder.found is not None:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._max_tokens:
            text += self.finish("length")
        return text

    def finish(self, reason: FinishReason = "cancelled") -> str:
        """Ends it, unless it has ended, and returns the text that was held back."""
        if self.finish_reason is not None:
            return ""
        text = self._finder.push(self._decoder.finish())
        if self._finder.found is None:
            text += self._finder.finish()
        self.finish_reason = reason
        self.text += text
        return text


def as_stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """One stop, several, or none, as several."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())
