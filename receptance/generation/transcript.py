"""A conversation as a value, and as a file: the states of its turns, with what was said.

save_moments("chat.safetensors", model, moments, {...})
moments, about = load_moments("chat.safetensors", model)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, StateError
from ..models import RWKV
from ..state import State, saved_notes
from ..templates import Message
from ..tokenizers.tokenizer import utf8
from .noise import LIMIT

# The note in the file of states that holds the words.
KEY = "conversation"


@dataclass(frozen=True, slots=True)
class Moment:
    """A conversation after some messages.

    text        all of it as the model reads it, to the end of the last answer
    unread      the end of `text` that the state has not read yet
    state       one row; None where nothing was read
    num_tokens  how many tokens the state has read
    attempt     how often its last message was tried before: then the noise is not that of a former attempt
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    unread: str = ""
    state: State | None = None
    num_tokens: int = 0
    attempt: int = 0

    def to(self, device: torch.device | str) -> Moment:
        """With its state on another device."""
        if self.state is None or self.state.wkv.device == torch.device(device):
            return self
        return replace(self, state=self.state.to(device))


def as_message(message: Message | Mapping[str, str]) -> Message:
    """A message, or a mapping of `role` and `content`, as one.  Raises InputError for what is neither, or no text."""
    if isinstance(message, Mapping) and message.keys() == {"role", "content"}:
        message = Message(message["role"], message["content"])
    if not isinstance(message, Message) or not isinstance(message.content, str):
        raise InputError(f'a message is a Message, or {{"role": "user", "content": "Hello"}}, got {message!r:.100}')
    utf8(message.content)
    return message


class SavedMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    raw: str | None = None


class SavedMoment(BaseModel):
    """A moment without its state, which is row `row` of the file's.

    text    or its length, where it is how the present moment's text begins
    """

    model_config = ConfigDict(extra="forbid")
    num_messages: int = Field(ge=0)
    text: str | int
    unread: str
    num_tokens: int = Field(ge=0)
    row: int | None = Field(default=None, ge=0)
    attempt: int = Field(default=0, ge=0)


class About(BaseModel):
    """How the conversation was led."""

    model_config = ConfigDict(extra="forbid")
    template: str
    think: str
    system: str | None
    seed: int = Field(ge=0, lt=LIMIT)


class Conversation(BaseModel):
    """All of a file but the states.

    initial_row     of the state that everything starts from; None where that is the empty one
    """

    model_config = ConfigDict(extra="forbid")
    about: About
    initial_row: int | None = Field(default=None, ge=0)
    messages: list[SavedMessage]
    text: str
    moments: list[SavedMoment] = Field(min_length=1)


def save_moments(
    path: str | Path, model: RWKV, moments: Sequence[Moment], initial: State | None, about: Mapping[str, Any]
) -> None:
    """Write moments of one conversation, the last one the present, and the state that it started from.

    Those that the present one does not go on from, as after a reset, are left out.  Raises InputError where nothing was
    said yet, StateError where the file cannot be written.
    """
    present = moments[-1]
    if present.state is None:
        raise InputError("there is no conversation to save yet; say something first")
    kept = [moment for moment in moments if present.messages[: len(moment.messages)] == moment.messages]
    states: list[State] = []

    def row_of(state: State | None) -> int | None:
        if state is not None:
            states.append(state.to("cpu"))
        return None if state is None else len(states) - 1

    conversation = Conversation(
        about=About(**about),
        initial_row=row_of(initial),
        messages=[SavedMessage.model_validate(asdict(message)) for message in present.messages],
        text=present.text,
        moments=[
            SavedMoment(
                num_messages=len(moment.messages),
                text=len(moment.text) if present.text.startswith(moment.text) else moment.text,
                unread=moment.unread,
                num_tokens=moment.num_tokens,
                row=row_of(moment.state),
                attempt=moment.attempt,
            )
            for moment in kept
        ],
    )
    State.stack(states).save(path, model, {KEY: conversation.model_dump_json()})


def load_moments(path: str | Path, model: RWKV) -> tuple[list[Moment], State | None, About]:
    """Read what `save_moments` wrote: the moments and the first state, all on the CPU, and how it was led.

    Raises StateError where the file is no conversation, is damaged, or was saved from another model.
    """
    states = State.load(path, model).to(dtype=model.emb.weight.dtype)

    def state_of(row: int | None) -> State | None:
        return None if row is None else states.rows([row])

    try:
        saved = Conversation.model_validate_json(saved_notes(path).get(KEY, ""))
        messages = tuple(Message(m.role, m.content, m.raw) for m in saved.messages)
        moments = [
            Moment(
                messages[: moment.num_messages],
                saved.text[: moment.text] if isinstance(moment.text, int) else moment.text,
                moment.unread,
                state_of(moment.row),
                moment.num_tokens,
                moment.attempt,
            )
            for moment in saved.moments
        ]
        initial = state_of(saved.initial_row)
    except (ValidationError, IndexError) as error:
        raise StateError(f"{path} holds a state but no conversation that can be read") from error
    for moment in moments:
        if not moment.text.endswith(moment.unread) or (moment.text != "" and moment.state is None):
            raise StateError(f"{path} is damaged: its words and its states do not belong together")
    if not all(bool(tensor.isfinite().all()) for tensor in states):
        raise StateError(f"{path} is damaged: its states are not finite")
    return moments, initial, saved.about
