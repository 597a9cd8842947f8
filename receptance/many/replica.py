"""One process with one model: the application of `receptance.server`, asked by `Door`s instead of over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from ray import serve
from starlette.types import Message, Scope

from ..server import Recipe, Settings, create_app
from ..server.launch import log_to_stderr

# In every response: which replica has answered.
HEADER = b"x-replica"


class Whole(NamedTuple):
    """A response that is no stream."""

    replica: str
    status: int
    media_type: str
    body: bytes


class Replica:
    """What Ray Serve starts several of."""

    def __init__(self, recipe: Recipe, settings: Settings, folder: str) -> None:
        """`folder`: where the recipe's paths begin, on machines that have it too."""
        with suppress(OSError):
            os.chdir(folder)
        log_to_stderr()
        self._name = serve.get_replica_context().replica_id.unique_id
        self._service = recipe.service()
        self._app = create_app(self._service, settings)
        self._service.warm_up()

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[list[Message]]:
        """What the application sends for one request; it is cancelled where this is closed.

        What is sent while Ray is busy with what was sent before goes out together.
        """
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        sent: asyncio.Queue[Message | None] = asyncio.Queue()

        async def receive() -> Message:
            if not waiting:
                # Until it is cancelled: of whoever has gone, the door knows.
                await asyncio.Event().wait()
            return waiting.pop()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (HEADER, self._name.encode())]}
            sent.put_nowait(message)

        async def run() -> None:
            # What goes wrong within has been told and logged there.
            with suppress(Exception):
                await self._app(scope, receive, send)
            sent.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            ended = False
            while not ended:
                messages = [await sent.get()]
                while not sent.empty():
                    messages.append(sent.get_nowait())
                ended = messages[-1] is None
                yield [message for message in messages if message is not None]
        finally:
            running.cancel()

    async def whole(self, scope: Scope, body: bytes) -> Whole:
        """The same, at once."""
        start, *parts = [message async for messages in self.answer(scope, body) for message in messages]
        media_type = dict(start["headers"]).get(b"content-type", b"").decode("latin-1")
        return Whole(self._name, start["status"], media_type, b"".join(part.get("body", b"") for part in parts))

    def check_health(self) -> None:
        """Asked by Ray Serve, which starts another one in the place of one that is stuck."""
        self._app.state.face.check()

    def __del__(self) -> None:
        """Called by Ray Serve when all answers have been given; without a service where that could not be made."""
        if hasattr(self, "_service"):
            self._service.close()
