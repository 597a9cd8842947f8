"""Stored conversations by HTTP.

A stored conversation is a state with what led to it.  A request names it as `state`, and its messages go on from
there; `save_state` stores what it leads to.  So a handbook is read once, and a conversation is forked by going on from
one name under two others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, Field, model_validator

from ..errors import InputError
from ..generation import Moment
from ..generation.completion import prompt_tokens
from ..state import State
from ..templates import Message as Said
from .access import Caller
from .face import Face
from .forms import tool_form
from .marks import spoken
from .parts import MOST_MESSAGES, Message, Name, Shape, Text
from .rendering import as_messages
from .schemas import StateName
from .service import Offer
from .stored import Stored, new

NamedInPath = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class StateRequest(Shape):
    """The body of POST /v1/states: what is to be read and stored."""

    name: StateName
    model: Name = Field(description="A name that /v1/models lists.")
    messages: list[Message] | None = Field(None, min_length=1, max_length=MOST_MESSAGES)
    prompt: Text | None = Field(None, description="A text, for /v1/completions to go on from.")

    @model_validator(mode="after")
    def _has_one(self) -> StateRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or a prompt")
        return self


class ForkRequest(Shape):
    """The body of POST /v1/states/{name}/fork."""

    name: StateName = Field(description="Of the copy.")


class StoredState(BaseModel):
    """A stored conversation."""

    id: str
    object: Literal["state"]
    created: int = Field(description="Seconds since 1970.")
    model: str
    num_tokens: int = Field(description="That were read.")
    num_messages: int
    num_bytes: int = Field(description="Of the state, whatever was read.")


class StateList(BaseModel):
    """The answer of GET /v1/states."""

    object: Literal["list"]
    data: list[StoredState]


class Deleted(BaseModel):
    """The answer of DELETE /v1/states/{name}."""

    id: str
    object: Literal["state"]
    deleted: Literal[True]


def add_states(app: FastAPI, face: Face) -> None:
    """The routes."""
    known = Depends(face.caller)
    conversations = face.service.conversations

    @app.get("/v1/states", tags=["states"])
    async def states(caller: Caller = known) -> StateList:
        """All that are stored."""
        found = await asyncio.to_thread(conversations.all, caller.name)
        return StateList(object="list", data=list(map(_about, found)))

    @app.post("/v1/states", tags=["states"])
    async def save(body: StateRequest, caller: Caller = known) -> StoredState:
        """Read messages or a text, and store the state."""
        face.check()
        offer = face.offer(body.model)
        conversations.check_room(caller.name, body.name)
        with caller.asking():
            text, messages, tokens = await asyncio.to_thread(_text_of, body, face, offer)
            state = await _state_after(face, offer, tokens, (), caller)
        caller.used(len(tokens))
        moment = Moment(messages, text, "", state, len(tokens))
        template = face.service.defaults.template
        stored = new(body.name, offer.id, moment, template.name, template.default_think)
        return _about(await asyncio.to_thread(conversations.put, caller.name, stored))

    @app.get("/v1/states/{name}", tags=["states"])
    async def state(name: NamedInPath, caller: Caller = known) -> StoredState:
        """One of them."""
        return _about(await asyncio.to_thread(conversations.get, caller.name, name))

    @app.delete("/v1/states/{name}", tags=["states"])
    async def delete(name: NamedInPath, caller: Caller = known) -> Deleted:
        """Forget one."""
        await asyncio.to_thread(conversations.delete, caller.name, name)
        return Deleted(id=name, object="state", deleted=True)

    @app.post("/v1/states/{name}/fork", tags=["states"])
    async def fork(name: NamedInPath, body: ForkRequest, caller: Caller = known) -> StoredState:
        """Store the same under another name."""
        found = await asyncio.to_thread(conversations.get, caller.name, name)
        copy = new(body.name, found.model, found.moment, found.about["template"], found.about["think"])
        return _about(await asyncio.to_thread(conversations.put, caller.name, copy))

    @app.get("/v1/states/{name}/file", tags=["states"], response_class=Response)
    async def file(name: NamedInPath, caller: Caller = known) -> Response:
        """One as a safetensors file, which `receptance chat` loads too."""
        found = await asyncio.to_thread(conversations.get, caller.name, name)
        data = await asyncio.to_thread(conversations.to_file, found)
        headers = {"Content-Disposition": f'attachment; filename="{name}.safetensors"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    @app.put("/v1/states/{name}/file", tags=["states"])
    async def send(name: NamedInPath, model: str, http: Request, caller: Caller = known) -> StoredState:
        """Store what a file holds, as the body: one of this server's, or of `receptance chat`."""
        offer = face.offer(model)
        data = await http.body()
        found = await asyncio.to_thread(conversations.from_file, data, name, offer.id)
        return _about(await asyncio.to_thread(conversations.put, caller.name, found))


async def _state_after(
    face: Face, offer: Offer, tokens: Sequence[int], marks: Sequence[int], caller: Caller
) -> State:
    return await asyncio.wrap_future(face.service.state_after(offer, tokens, marks, caller.name))


def _text_of(body: StateRequest, face: Face, offer: Offer) -> tuple[str, tuple[Said, ...], list[int]]:
    """What is read, the messages that it holds, and its tokens: up to where the user's next message would begin."""
    defaults = face.service.defaults
    if body.messages is None and not body.prompt:
        raise InputError("the prompt is empty; give a text")
    text, messages = body.prompt or "", as_messages(body.messages or (), tool_form(defaults.template))
    if messages:
        text = spoken(messages, defaults.template.prompt)
    tokens = prompt_tokens(defaults.tokenizer, text, offer.start)
    if len(tokens) > (most := defaults.most_prompt_tokens):
        raise InputError(f"the text has {len(tokens):,} tokens and this server reads at most {most:,}; shorten it")
    return text, tuple(messages), tokens


def _about(stored: Stored) -> StoredState:
    return StoredState(
        id=stored.name,
        object="state",
        created=stored.created,
        model=stored.model,
        num_tokens=stored.moment.num_tokens,
        num_messages=len(stored.moment.messages),
        num_bytes=stored.num_bytes,
    )
