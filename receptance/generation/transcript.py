"""A conversation as a value, and as a file: the states of its turns, with what was said.

save_moments("chat.safetensors", model, moments, {...})
moments, about = load_moments("chat.safetensors", model)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, StateError
from ..models import RWKV
from ..state import State, saved_notes
from ..templates import Message

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


class SavedMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str
    content: str
    raw: str | None = None


class SavedMoment(BaseModel):
    """A moment without its state, which is row `row` of the file's."""

    model_config = ConfigDict(extra="forbid")
    num_messages: int = Field(ge=0)
    text: str
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
    seed: int = Field(ge=0)


class Conversation(BaseModel):
    model_config = ConfigDict(extra="forbid")
    about: About
    messages: list[SavedMessage]
    moments: list[SavedMoment] = Field(min_length=1)


def save_moments(path: str | Path, model: RWKV, moments: Sequence[Moment], about: Mapping[str, Any]) -> None:
    """Write moments of one conversation, the last one the present.

    Those that the present one does not go on from, as after a reset, are left out.  Raises InputError where nothing was
    said yet, StateError where the file cannot be written.
    """
    present = moments[-1]
    if present.state is None or not present.messages:
        raise InputError("there is no conversation to save yet; say something first")
    kept = [moment for moment in moments if present.messages[: len(moment.messages)] == moment.messages]
    states = [moment.state for moment in kept if moment.state is not None]
    rows = iter(range(len(states)))
    conversation = Conversation(
        about=About(**about),
        messages=[SavedMessage(role=m.role, content=m.content, raw=m.raw) for m in present.messages],
        moments=[
            SavedMoment(
                num_messages=len(moment.messages),
                text=moment.text,
                unread=moment.unread,
                num_tokens=moment.num_tokens,
                row=None if moment.state is None else next(rows),
                attempt=moment.attempt,
            )
            for moment in kept
        ],
    )
    State.stack(states).save(path, model, {KEY: conversation.model_dump_json()})


def load_moments(path: str | Path, model: RWKV) -> tuple[list[Moment], About]:
    """Read what `save_moments` wrote.

    Raises StateError where the file is no conversation, is damaged, or was saved from another model.
    """
    states = State.load(path, model)
    weight = model.emb.weight
    states = states.to(weight.device, weight.dtype)
    try:
        saved = Conversation.model_validate_json(saved_notes(path).get(KEY, ""))
        messages = tuple(Message(m.role, m.content, m.raw) for m in saved.messages)
        moments = [
            Moment(
                messages[: moment.num_messages],
                moment.text,
                moment.unread,
                None if moment.row is None else states.rows([moment.row]),
                moment.num_tokens,
                moment.attempt,
            )
            for moment in saved.moments
        ]
    except (ValidationError, IndexError) as error:
        raise StateError(f"{path} holds a state but no conversation that can be read") from error
    return moments, saved.about
