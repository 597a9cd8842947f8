"""One answer of a conversation while it is given: from the moment before it to the moment after it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..state import State
from ..templates import Message, Piece, ReplySplitter, ToolCall, split_reply
from .completion import prompt_tokens
from .continuation import Continuation, FinishReason
from .decoding import Decoding
from .penalties import uncounted_tokens
from .transcript import Moment

if TYPE_CHECKING:
    from .chat import Chat

# States of which it is not certain yet whether they have read too much: what a stop is written in.
UNCERTAIN_STEPS = 16
# Noise of an answer: its turn, and the attempt within the turn.
ATTEMPTS = 2**20


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    text            without the thought and without the stop
    thought         what stood between <think> and </think>; "" where nothing did
    tool_calls      the calls that the answer asks for
    finish_reason   "stop", "length", or "cancelled"
    prompt_seconds  time to read the message; `seconds`: from then to the last token
    """

    text: str
    thought: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    prompt_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """How fast the answer came, without the reading."""
        return self.num_tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the reading of an answer stood: so many tokens, which are so many characters, and the state."""

    num_tokens: int
    num_characters: int
    state: State


class Answer:
    """An answer while it is given: from the moment before it to the moment after it."""

    def __init__(self, chat: Chat, before: Moment, said: tuple[Message, ...], attempt: int) -> None:
        self.model, self.tokenizer, self.template = chat.model, chat.tokenizer, chat.template
        self.has_tools = bool(chat.tools)
        *earlier, last = said
        self.messages = (*before.messages, *earlier, chat.template.as_sent(last, chat.think))
        system = () if chat.system is None else (Message("system", chat.system),)
        # What a function returned is to be told, not to be answered by another call.
        call = last.role != "tool"
        self.text = chat.template.prompt([*system, *self.messages], chat.think, chat.tools, call)
        self.opening = chat.template.opening(chat.think, chat.tools, call)
        # Otherwise the system text or the template has changed, and the conversation is read again from the start.
        goes_on = self.text.startswith(before.text)
        self.start = before.state if goes_on else chat.initial_state
        unread = before.unread + self.text[len(before.text) :] if goes_on else self.text
        self.prompt = prompt_tokens(chat.tokenizer, unread, self.start)
        self.num_read = (before.num_tokens if goes_on else 0) + len(self.prompt)
        self.sampling = chat.effective_sampling()
        self.attempt = attempt
        self.request = len(before.messages) * ATTEMPTS + attempt
        self.continuation = Continuation(chat.tokenizer, (*chat.template.stops, *chat.stop), chat.max_tokens)
        self.certain: Place | None = None
        self.uncertain: deque[Place] = deque(maxlen=UNCERTAIN_STEPS)
        self.prompt_seconds = self.seconds = 0.0

    def pieces(self) -> Iterator[Piece]:
        """Thought and answer as they come."""
        clock = time.perf_counter()
        uncounted = uncounted_tokens(self.tokenizer)
        decoding = Decoding(self.model, [self.prompt], [self.sampling], [self.request], self.start, uncounted)
        self.prompt_seconds, clock = time.perf_counter() - clock, time.perf_counter()
        self.certain = Place(0, 0, decoding.state)
        splitter = ReplySplitter(self.opening)
        while self.continuation.finish_reason is None:
            [token] = decoding.step().tokens.tolist()
            if (num_characters := self.continuation.num_decoded) is not None:
                self.uncertain.append(Place(len(self.continuation.tokens), num_characters, decoding.state))
            text = self.continuation.push(token)
            self._advance()
            self.seconds = time.perf_counter() - clock
            yield from splitter.push(text)
        yield from splitter.finish()

    def _advance(self) -> str:
        """What was said so far, without a stop and white space at its end; finds the last state that read no more."""
        said = self.continuation.text.rstrip()
        while self.uncertain and self.uncertain[0].num_characters <= len(said):
            self.certain = self.uncertain.popleft()
        return said

    def end(self) -> tuple[Moment, Reply]:
        """The conversation after this answer, of which at least one token has come, and the answer for the user."""
        self.continuation.finish()
        said = self._advance()
        assert self.certain is not None, "the prompt has been read"
        thought, text = split_reply(self.continuation.text, self.opening)
        moment = Moment(
            messages=(*self.messages, Message("assistant", text, raw=self.opening + said)),
            text=self.text + said,
            unread=said[self.certain.num_characters :],
            state=self.certain.state,
            num_tokens=self.num_read + self.certain.num_tokens,
            attempt=self.attempt,
        )
        reply = Reply(
            text=text,
            thought=thought,
            tool_calls=tuple(self.template.parse_tool_calls(text)) if self.has_tools else (),
            finish_reason=self.continuation.finish_reason or "cancelled",
            num_prompt_tokens=len(self.prompt),
            num_tokens=len(self.continuation.tokens),
            prompt_seconds=self.prompt_seconds,
            seconds=self.seconds,
        )
        return moment, reply
