"""A conversation: the state is its memory, so that undoing, trying again and forking cost nothing.

    chat = Chat(model, tokenizer, TEMPLATES["g1"], system="You are brief.")
    for piece in chat.stream("What is a state?"):            # piece.kind is "thought" or "answer"
        print(piece.text, end="", flush=True)
    chat.undo()

The state always stands where the text of the conversation stands: tokens of a stop are taken back out of it, by going
back to an earlier state, and the part of a token that is not in the text is read with the next message.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models import RWKV
from ..state import State
from ..templates import Message, Piece, ReplySplitter, Template, ToolCall
from ..tokenizers import Tokenizer
from .completion import prompt_tokens
from .continuation import Continuation
from .decoding import Decoding, read
from .sampling import Sampling, preset_for, uncounted_tokens
from .transcript import Moment, load_moments, save_moments

# How many turns can be taken back: each keeps a state in memory.
UNDO_DEPTH = 32
# States of the last steps of an answer.  Stops are shorter than this; where one is not, the answer is read again.
RECENT_STEPS = 12
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
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int
    prompt_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """How fast the answer came, without the reading."""
        return self.num_tokens / self.seconds if self.seconds > 0 else 0.0


class Chat:
    """A conversation with a model.

    moment      what has been said so far, and the state that remembers it
    reply       the last answer; None before the first
    seed        all noise of the conversation comes from it
    The settings `system`, `think`, `sampling`, `max_tokens`, `stops` and `tools` may be changed between two messages.
    """

    def __init__(
        self,
        model: RWKV,
        tokenizer: Tokenizer,
        template: Template,
        *,
        system: str | None = None,
        messages: Sequence[Message] = (),
        think: str | None = None,
        sampling: Sampling | None = None,
        max_tokens: int = 2048,
        stops: Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        state: State | None = None,
    ) -> None:
        """An empty conversation, or one that goes on after `messages`.

        system      instructions that come first; "" leaves out the introduction that some templates have
        think       None: what suits the template
        sampling    None: what suits the template and the think mode
        stops       beside those of the template
        state       a tuned or prepared one, of one row, that everything starts from

        Raises InputError for a think mode or tools that the template does not have.
        """
        self.model, self.tokenizer = model, tokenizer
        self.template = template.for_tools() if tools else template
        self.think = self.template.default_think if think is None else think
        self.template.opening(self.think, tools)
        self.system, self.tools = system, tuple(tools)
        self.sampling, self.max_tokens, self.stops = sampling, max_tokens, tuple(stops)
        self.seed = secrets.randbits(48) if sampling is None or sampling.seed is None else sampling.seed
        self.reply: Reply | None = None
        self.initial_state = state
        self.moment = Moment(tuple(messages), state=state)
        self._past: deque[Moment] = deque(maxlen=UNDO_DEPTH)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What has been said, without the system text."""
        return self.moment.messages

    @property
    def state(self) -> State | None:
        """The memory of the conversation; None before the first answer."""
        return self.moment.state

    def ask(self, message: str | Message) -> Reply:
        """Say something (a text is a user's) and wait for the whole answer.  Raises what `stream` raises."""
        for _ in self.stream(message):
            pass
        assert self.reply is not None
        return self.reply

    def stream(self, message: str | Message) -> Generator[Piece, None, None]:
        """Say something and get the answer in pieces; `reply` holds all of it afterwards.

        Closing the iterator, or Ctrl-C, ends the answer; what was said until then stays part of the conversation.
        Raises InputError where the template cannot say this.
        """
        said = message if isinstance(message, Message) else Message("user", message)
        return self._answer((said,))

    def retry(self) -> Generator[Piece, None, None]:
        """The last answer anew, with other noise.  Raises InputError where there is none.

        Where no token of the new answer comes, as after an error, the old one stays.
        """
        if not self._past or len(self.messages) <= len(self._past[-1].messages):
            raise InputError("there is no answer yet that could be tried again; say something first")
        before = self._past[-1]
        # As they were said, without what the think mode of then added to them.
        said = tuple(replace(message, raw=None) for message in self.messages[len(before.messages) : -1])
        return self._answer(said, before, self.moment.attempt + 1)

    def undo(self) -> tuple[Message, ...]:
        """Take back the last message and its answer, which are returned.  Raises InputError where there is none."""
        if not self._past:
            raise InputError("there is nothing to take back; say something first")
        gone, self.moment = self.moment, self._past.pop()
        self.reply = None
        return gone.messages[len(self.messages) :]

    def reset(self) -> None:
        """Forget everything; `undo` brings it back."""
        self._past.append(self.moment)
        self.moment, self.reply = Moment(state=self.initial_state), None

    def fork(self) -> Chat:
        """A second conversation with the same past, which goes its own way."""
        other = copy.copy(self)
        other._past = self._past.copy()
        return other

    def save(self, path: str | Path) -> None:
        """Write the conversation, its past included, as a file of states.

        Raises InputError where nothing has been said, StateError where it cannot be written.
        """
        about = {"template": self.template.name, "think": self.think, "system": self.system, "seed": self.seed}
        save_moments(path, self.model, [*self._past, self.moment], about)

    def load(self, path: str | Path) -> None:
        """Go on with a conversation that was saved from the same model, in place of this one.

        Raises StateError where the file holds none, is damaged or belongs to another model; then nothing changes.
        """
        moments, about = load_moments(path, self.model)
        *past, self.moment = moments
        self._past = deque(past, maxlen=UNDO_DEPTH)
        self.system, self.seed, self.reply = about.system, about.seed, None
        if about.think in self.template.think_modes:
            self.think = about.think

    def _answer(
        self, said: tuple[Message, ...], before: Moment | None = None, attempt: int = 0
    ) -> Generator[Piece, None, None]:
        """An answer to what is said after `before`, or now if None."""
        before = self.moment if before is None else before
        answer = Answer(self, before, said, attempt)
        try:
            yield from answer.pieces()
        finally:
            # Also where the caller goes away or Ctrl-C comes: what was said was said.
            if answer.continuation.tokens:
                moment, reply = answer.moment(), answer.reply()
                if before is self.moment:
                    self._past.append(before)
                self.moment, self.reply = moment, reply


class Answer:
    """An answer while it is given: from the moment before it to the moment after it."""

    def __init__(self, chat: Chat, before: Moment, said: tuple[Message, ...], attempt: int) -> None:
        self.model, self.tokenizer, self.template = chat.model, chat.tokenizer, chat.template
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
        suits = chat.sampling or preset_for(chat.template.name, chat.think)
        self.sampling = replace(suits, seed=chat.seed)
        self.attempt = attempt
        self.request = len(before.messages) * ATTEMPTS + attempt
        self.continuation = Continuation(chat.tokenizer, (*chat.template.stops, *chat.stops), chat.max_tokens)
        self.splitter = ReplySplitter(self.opening)
        self.split: list[Piece] = []
        self.recent: deque[tuple[int, State]] = deque(maxlen=RECENT_STEPS)
        self.prompt_seconds = self.seconds = 0.0

    def pieces(self) -> Iterator[Piece]:
        """Thought and answer as they come."""
        clock = time.perf_counter()
        uncounted = uncounted_tokens(self.tokenizer)
        decoding = Decoding(self.model, [self.prompt], [self.sampling], [self.request], self.start, uncounted)
        self.prompt_seconds, clock = time.perf_counter() - clock, time.perf_counter()
        while self.continuation.finish_reason is None:
            [token] = decoding.step().tokens.tolist()
            self.recent.append((len(self.continuation.tokens), decoding.state))
            text = self.continuation.push(token)
            self.seconds = time.perf_counter() - clock
            yield from self._split(text)
        yield from self._end()

    def _split(self, text: str) -> list[Piece]:
        pieces = self.splitter.push(text)
        self.split += pieces
        return pieces

    def _end(self) -> list[Piece]:
        """What was still held back; nothing when called again."""
        pieces = [*self.splitter.push(self.continuation.finish()), *self.splitter.finish()]
        self.split += pieces
        return pieces

    def moment(self) -> Moment:
        """The conversation after this answer."""
        self._end()
        said = self.continuation.text.rstrip()
        num_tokens, state = self._state_within(said)
        unread = said[len(self.tokenizer.decode(self.continuation.tokens[:num_tokens])) :]
        message = Message("assistant", self._part("answer"), raw=self.opening + said)
        num_tokens += self.num_read
        return Moment((*self.messages, message), self.text + said, unread, state, num_tokens, self.attempt)

    def _state_within(self, said: str) -> tuple[int, State]:
        """The latest state that has read nothing but `said`, and how many tokens of the answer it has read."""
        tokens = self.continuation.tokens
        for num_tokens, state in reversed(self.recent):
            if said.startswith(self.tokenizer.decode(tokens[:num_tokens])):
                return num_tokens, state
        num_tokens = max(n for n in range(len(tokens)) if said.startswith(self.tokenizer.decode(tokens[:n])))
        return num_tokens, read(self.model, [self.prompt + tokens[:num_tokens]], self.start)[1]

    def _part(self, kind: str) -> str:
        return "".join(piece.text for piece in self.split if piece.kind == kind).strip()

    def reply(self) -> Reply:
        """This answer, for the user."""
        text = self._part("answer")
        return Reply(
            text=text,
            thought=self._part("thought"),
            tool_calls=tuple(self.template.parse_tool_calls(text)),
            finish_reason=self.continuation.finish_reason or "cancelled",
            num_prompt_tokens=len(self.prompt),
            num_tokens=len(self.continuation.tokens),
            prompt_seconds=self.prompt_seconds,
            seconds=self.seconds,
        )
