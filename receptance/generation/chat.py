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
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..models import RWKV
from ..state import State
from ..templates import TEMPLATES, Message, Piece, Template
from ..tokenizers import Tokenizer
from .answer import Answer, Reply
from .continuation import as_stops
from .presets import preset_for, sampling_of
from .sampling import SEED_BITS
from .settings import Sampling
from .transcript import Moment, as_message, load_moments, save_moments

# How many turns can be taken back: each keeps a state in memory, on the CPU.
UNDO_DEPTH = 32


class Chat:
    """A conversation with a model.

    moment      what has been said so far, and the state that remembers it
    reply       the last answer; None before the first
    seed        all noise of the conversation comes from it, whatever the seed of `sampling` is

    The settings `template`, `system`, `think`, `sampling`, `settings`, `seed`, `max_tokens`, `stop` and `tools` may be
    changed between two messages.  An answer that is still being given ends where anything else is done with the
    conversation.
    """

    def __init__(
        self,
        model: RWKV,
        tokenizer: Tokenizer,
        template: Template,
        *,
        system: str | None = None,
        messages: Sequence[Message | Mapping[str, str]] = (),
        think: str | None = None,
        sampling: Sampling | str | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        max_tokens: int = 2048,
        stop: str | Sequence[str] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        state: State | None = None,
    ) -> None:
        """An empty conversation, or one that goes on after `messages` (or mappings of `role` and `content`).

        system      instructions that come first; "" leaves out the introduction that some templates have
        think       None: what suits the template
        sampling    or the name of a preset; None: what suits the template and the think mode
        settings    changes to that, as {"temperature": 0.7}
        seed        None: that of `sampling`, or another one each time
        stop        texts that end an answer, beside those of the template
        state       a tuned or prepared one, of one row, that everything starts from

        Raises InputError for what no answer could be given with.
        """
        self.model, self.tokenizer = model, tokenizer
        self.template = template.for_tools() if tools else template
        self.think = self.template.default_think if think is None else think
        self.system, self.tools = system, tuple(tools)
        self.sampling = sampling_of(sampling, {}) if isinstance(sampling, str) else sampling
        self.settings, self.max_tokens, self.stop = dict(settings or {}), max_tokens, as_stops(stop)
        seeds = (seed, self.sampling.seed if self.sampling else None, secrets.randbits(SEED_BITS))
        self.seed = next(known for known in seeds if known is not None)
        self.reply: Reply | None = None
        self.initial_state = state
        self.moment = Moment(tuple(map(as_message, messages)), state=state)
        self._past: deque[Moment] = deque(maxlen=UNDO_DEPTH)
        self._running: Generator[Piece, None, None] | None = None
        # What cannot be said is better refused now than with the first message.
        Answer(self, self.moment, (Message("user", "Hello"),), 0)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What has been said, without the system text."""
        return self.moment.messages

    @property
    def state(self) -> State | None:
        """The memory of the conversation; None before the first answer."""
        return self.moment.state

    def effective_sampling(self) -> Sampling:
        """How the tokens of the next answer are chosen.  Raises InputError for `settings` that cannot be."""
        suits = self.sampling or preset_for(self.template.name, self.think)
        return sampling_of(suits, {**self.settings, "seed": self.seed})

    def ask(self, message: str | Message | Mapping[str, str]) -> Reply:
        """Say something (a text is a user's) and wait for the whole answer.  Raises what `stream` raises."""
        for _ in self.stream(message):
            pass
        assert self.reply is not None
        return self.reply

    def stream(self, message: str | Message | Mapping[str, str]) -> Generator[Piece, None, None]:
        """Say something and get the answer in pieces; `reply` holds all of it afterwards.

        Closing the iterator, or Ctrl-C, ends the answer; what was said until then stays part of the conversation.
        Raises InputError where the template cannot say this.
        """
        self.settle()
        said = as_message(Message("user", message) if isinstance(message, str) else message)
        self._running = self._answer((said,), self.moment)
        return self._running

    def retry(self) -> Generator[Piece, None, None]:
        """The last answer anew, with other noise.  Raises InputError where there is none.

        Where no token of the new answer comes, as after an error, the old one stays.
        """
        self.settle()
        if not self._past or len(self.messages) <= len(self._past[-1].messages):
            raise InputError("there is no answer yet that could be tried again; say something first")
        before = self._past[-1]
        # As they were said, without what the think mode of then added to them.
        said = tuple(replace(message, raw=None) for message in self.messages[len(before.messages) : -1])
        self._running = self._answer(said, before, self.moment.attempt + 1)
        return self._running

    def settle(self) -> None:
        """End an answer that is still being given; what was said until then stays."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def undo(self) -> tuple[Message, ...]:
        """Take back the last message and its answer, which are returned.  Raises InputError where there is none."""
        self.settle()
        if not self._past:
            if self.messages:
                raise InputError(f"only the last {UNDO_DEPTH} turns can be taken back")
            raise InputError("there is nothing to take back; say something first")
        gone, self.moment = self.moment, self._past.pop().to(self._device)
        self.reply = None
        return gone.messages[len(self.messages) :]

    def reset(self) -> None:
        """Forget everything; `undo` brings it back."""
        self.settle()
        self._past.append(self.moment.to("cpu"))
        self.moment, self.reply = Moment(state=self.initial_state), None

    def fork(self) -> Chat:
        """A second conversation with the same past, which goes its own way."""
        self.settle()
        other = copy.copy(self)
        other._past, other.settings = self._past.copy(), self.settings.copy()
        return other

    def save(self, path: str | Path) -> None:
        """Write the conversation, its past included, as a file of states.

        Raises InputError where nothing has been said, StateError where it cannot be written.
        """
        self.settle()
        about = {"template": self.template.name, "think": self.think, "system": self.system, "seed": self.seed}
        save_moments(path, self.model, [*self._past, self.moment], self.initial_state, about)

    def load(self, path: str | Path) -> None:
        """Go on with a conversation that was saved from the same model, in place of this one.

        Its template, think mode, system text and seed come with it; a template of one's own does not, and the present
        one stays.  Raises StateError where the file holds none, is damaged or belongs to another model; then nothing
        changes.
        """
        self.settle()
        moments, initial, about = load_moments(path, self.model)
        *past, present = moments
        self.moment, self._past = present.to(self._device), deque(past, maxlen=UNDO_DEPTH)
        self.initial_state = None if initial is None else initial.to(self._device)
        self.template = TEMPLATES.get(about.template, self.template)
        self.system, self.seed, self.reply = about.system, about.seed, None
        if about.think in self.template.think_modes:
            self.think = about.think

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.emb.weight.device
        return device

    def _answer(self, said: tuple[Message, ...], before: Moment, attempt: int = 0) -> Generator[Piece, None, None]:
        """An answer to what is said after `before`, which is the present or, to answer again, the last past."""
        answer = Answer(self, before.to(self._device), said, attempt)
        try:
            yield from answer.pieces()
        finally:
            # Also where the caller goes away or Ctrl-C comes: what was said was said.
            if answer.continuation.tokens:
                moment, reply = answer.end()
                if before is self.moment:
                    self._past.append(before.to("cpu"))
                self.moment, self.reply = moment, reply
