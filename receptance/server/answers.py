"""An answer while it is given: a listener of the engine that makes events out of tokens.

    listener = AnswerListener(rendered, tokenizer, tell)
    worker.submit(Request(tokens=rendered.tokens, ...), listener)       # tell(Text("Hello")), ..., tell(Finished(...))

All of it happens in the engine's thread, as does the call of `tell`, which must return at once.  `bodies` makes
responses of the events.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..engine.request import Chosen, EndReason
from ..generation import Continuation, Moment
from ..state import State
from ..templates import Message, Piece, ReplySplitter, split_reply
from ..tokenizers import Tokenizer
from .calls import CallFinder
from .rendering import Rendered


@dataclass(frozen=True, slots=True)
class Thought:
    """More of the thought."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer; `tokens`: those it is written in, where their logprobs were asked for."""

    text: str
    tokens: tuple[Chosen, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A function to be called, as the answer's call number `index`; `arguments` is JSON."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event.

    reason          "length" also where the answer was cancelled or cut off by its deadline
    num_prompt      tokens that were read, of which `num_cached` were known
    num_tokens      tokens that were chosen, of which `num_reasoning` are the thought's
    moment          the conversation after the answer, where its state was asked for
    error           one sentence where the model could not answer
    """

    reason: Literal["stop", "length", "tool_calls"]
    num_prompt: int = 0
    num_cached: int = 0
    num_tokens: int = 0
    num_reasoning: int = 0
    moment: Moment | None = None
    error: str = ""


Event = Thought | Text | Call | Finished


class AnswerListener:
    """An `engine.Listener` for one answer."""

    def __init__(self, rendered: Rendered, tokenizer: Tokenizer, tell: Callable[[Event], None]) -> None:
        self._rendered, self._tokenizer, self._tell = rendered, tokenizer, tell
        self._continuation = Continuation(tokenizer, rendered.stops, rendered.max_tokens)
        self._splitter = None if rendered.opening is None else ReplySplitter(rendered.opening)
        self._finder = CallFinder(rendered.template) if rendered.has_tools and rendered.template else None
        self._spans = _Spans()
        self._num_cached = self._num_reasoning = 0
        self._has_thought = self._has_answer = False

    def read(self, num_cached: int) -> None:
        """See `Listener`."""
        self._num_cached = num_cached

    def chosen(self, chosen: Chosen) -> bool:
        """See `Listener`."""
        text = self._continuation.push(chosen.token)
        if chosen.token != self._tokenizer.end_of_text:
            self._spans.push(chosen, self._continuation.num_decoded)
        self._tell_pieces(self._split(text))
        return self._continuation.finish_reason is None

    def ended(self, reason: EndReason, state: State | None, error: str = "") -> None:
        """See `Listener`."""
        rest = self._split(self._continuation.finish())
        self._tell_pieces(rest + (self._splitter.finish() if self._splitter else []))
        text, calls = self._finder.finish() if self._finder else ("", [])
        self._tell_text(text)
        for index, call in enumerate(calls):
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            self._tell(Call(index, f"call_{secrets.token_hex(12)}", call.name, arguments))
        whole = self._continuation.finish_reason == "stop"
        num_tokens = len(self._continuation.tokens)
        self._tell(
            Finished(
                reason=("tool_calls" if calls else "stop") if whole else "length",
                num_prompt=len(self._rendered.tokens),
                num_cached=self._num_cached,
                num_tokens=num_tokens,
                num_reasoning=num_tokens if self._has_thought and not self._has_answer else self._num_reasoning,
                moment=None if state is None else self._moment(state),
                error=error,
            )
        )

    def _split(self, text: str) -> list[Piece]:
        if self._splitter is not None:
            return self._splitter.push(text)
        return [Piece("answer", text)] if text else []

    def _tell_pieces(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if piece.kind == "thought":
                self._has_thought = True
                self._tell(Thought(piece.text))
                continue
            if not self._has_answer:
                self._has_answer = True
                # An opening that is part of the answer makes it longer than what was generated.
                begin = max(0, len(self._continuation.text) - len(piece.text))
                num_before = self._spans.skip(begin)
                self._num_reasoning = num_before if self._has_thought else 0
            self._tell_text(piece.text if self._finder is None else self._finder.push(piece.text))

    def _tell_text(self, text: str) -> None:
        if text:
            told = self._spans.take(len(self._continuation.text))
            self._tell(Text(text, told if self._rendered.num_logprobs is not None else ()))

    def _moment(self, state: State) -> Moment:
        """What the state has read, which is all but the last token: a stop may have been begun.

        A text goes on where it ends, so that what was not read of it is left to be read.
        """
        continuation, rendered = self._continuation, self._rendered
        messages, unread = rendered.messages, ""
        if rendered.opening is not None:
            _, answer = split_reply(continuation.text, rendered.opening)
            messages = (*messages, Message("assistant", answer, raw=rendered.opening + continuation.text))
        read = continuation.tokens[:-1]
        said = self._tokenizer.decode(read)
        if rendered.opening is None and continuation.text.startswith(said):
            unread = continuation.text[len(said) :]
        num_tokens = rendered.num_before + len(rendered.tokens) + len(read)
        return Moment(messages, rendered.text + said + unread, unread, state, num_tokens)


class _Spans:
    """The tokens that were not told of yet, with the characters that they stand for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, Chosen]] = deque()
        self._end = 0

    def push(self, chosen: Chosen, num_decoded: int | None) -> None:
        """The next token; after it so many characters are decoded, or part of another one."""
        start = self._end
        if num_decoded is not None:
            self._end = num_decoded
        self._waiting.append((start, max(self._end, start + 1), chosen))

    def skip(self, place: int) -> int:
        """Drops the tokens that end before a place in the text, and returns how many they are."""
        num_tokens = 0
        while self._waiting and self._waiting[0][1] <= place:
            self._waiting.popleft()
            num_tokens += 1
        return num_tokens

    def take(self, place: int) -> tuple[Chosen, ...]:
        """The tokens that begin before a place in the text."""
        taken = []
        while self._waiting and self._waiting[0][0] < place:
            taken.append(self._waiting.popleft()[2])
        return tuple(taken)
