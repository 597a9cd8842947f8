"""POST /v1/look: what a model remembers of a conversation, layer by layer."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Literal

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from ..errors import InputError
from ..generation.completion import prompt_tokens
from ..interpret import LayerMemory
from ..state import State
from ..templates import Message as Said
from ..tokenizers.tokenizer import utf8
from .access import Caller
from .face import Face
from .forms import tool_form
from .marks import common_length, marks_of, shared_places, spoken
from .parts import MOST_MESSAGES, Message, Name, Shape
from .rendering import as_messages, think_of
from .schemas import ChatRequest
from .service import LOOKED_AT, Offer


class LookRequest(Shape):
    """The body of POST /v1/look."""

    model: Name
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    think: Name | None = None


class HalfLives(BaseModel):
    """In tokens; null where nothing fades."""

    p10: float | None
    p50: float | None
    p90: float | None


class LayerLook(BaseModel):
    """One layer: see `receptance.interpret.LayerMemory`."""

    half_life: HalfLives
    norm: float
    change: float | None = Field(description="By the last message, as a part of the state before; null at the start.")


class Look(BaseModel):
    """The answer of POST /v1/look."""

    object: Literal["look"]
    num_tokens: int
    layers: list[LayerLook]


def add_look(app: FastAPI, face: Face) -> None:
    """The route."""
    known = Depends(face.caller)

    @app.post("/v1/look", tags=["states"])
    async def look(body: LookRequest, caller: Caller = known) -> Look:
        """How long each layer remembers, and how much of its state the last message has changed."""
        face.check()
        offer = face.offer(body.model)
        with caller.asking():
            layers, num_tokens = await _Looking(face, offer, caller).at(body)
        caller.used(num_tokens)
        return Look(object="look", num_tokens=num_tokens, layers=list(map(_layer, layers)))


@dataclass(frozen=True)
class _Looking:
    """States are read as all texts are: in turn with others, and out of the cache."""

    face: Face
    offer: Offer
    caller: Caller

    async def at(self, body: LookRequest) -> tuple[list[LayerMemory], int]:
        """What the last message did; half-lives are measured on the last tokens of it."""
        tokens, marks, begin = await asyncio.to_thread(self._tokens, body)
        before = await self._state_after(tokens[:begin], marks) if begin else None
        start = max(begin, len(tokens) - LOOKED_AT)
        near = await self._state_after(tokens[:start], marks) if start > begin else before
        found = self.face.service.look(self.offer, tokens[start:], near, before)
        return await asyncio.wrap_future(found), len(tokens)

    def _tokens(self, body: LookRequest) -> tuple[list[int], Sequence[int], int]:
        """Those of the conversation, its marks, and how many stand before the last message."""
        defaults = self.face.service.defaults
        template, tokenizer = defaults.template, defaults.tokenizer
        request = ChatRequest.model_validate({"model": body.model, "messages": body.messages, "think": body.think})
        write = partial(template.prompt, think=think_of(request, template, defaults.think))
        messages = as_messages(body.messages, tool_form(template))
        text = spoken(messages, write)
        tokens = prompt_tokens(tokenizer, text, self.offer.start)
        if len(tokens) > (most := defaults.most_prompt_tokens):
            raise InputError(f"the text has {len(tokens):,} tokens and this server reads at most {most:,}; shorten it")
        earlier = common_length(text, spoken(messages[:-1], write)) if messages[1:] else 0
        ends = accumulate(len(tokenizer.token_bytes(token)) for token in tokens)
        begin = bisect_right(list(ends), len(utf8(text[:earlier]))) if earlier else 0
        places = shared_places([*messages, Said("user", "?")], write)
        marks = marks_of(text, tokens, [place for place in places if place < len(text)], tokenizer)
        return tokens, marks, begin if begin < len(tokens) else 0

    async def _state_after(self, tokens: Sequence[int], marks: Sequence[int]) -> State:
        own = [*(mark for mark in marks if mark < len(tokens)), len(tokens)]
        return await asyncio.wrap_future(self.face.service.state_after(self.offer, tokens, own, self.caller.name))


def _layer(layer: LayerMemory) -> LayerLook:
    half_life: dict[str, Any] = {
        name: value if math.isfinite(value) else None
        for name, value in ((name, getattr(layer.half_life, name)) for name in ("p10", "p50", "p90"))
    }
    return LayerLook(half_life=HalfLives(**half_life), norm=layer.norm, change=layer.change)
