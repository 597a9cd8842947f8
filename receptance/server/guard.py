"""What is checked of every HTTP request before anything else looks at it.

The Host header, so that no foreign page reaches a server on this machine under a name of its own; the kind of the body,
as a foreign page can send any other kind without asking; its size, as it is read whole or not at all, and how long it
takes to arrive.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# At the end of a Host header.
PORT = re.compile(r":[0-9]*$")
JSON = re.compile(rb"application/(?:[\w.-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
# A number with more digits than this is larger than any body may be.
LONGEST_NUMBER = 18
# Bytes of a body that is too large which are read all the same, so that who sends it sees the answer.
MOST_DROPPED = 2**24
# Nothing from elsewhere is loaded by the page, and nobody shows it within theirs.
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """An ASGI application around another.

    hosts           names under which the server may be asked; none: any
    most_bytes      of a body, and of one that is a file
    seconds         in which a body has to arrive
    report          told of each response: the route's path, or "other" where there is none, and the status
    """

    def __init__(
        self,
        app: App,
        hosts: Collection[str],
        most_bytes: int,
        most_file_bytes: int,
        seconds: float,
        report: Callable[[str, int], None] = lambda path, status: None,
    ) -> None:
        self._app, self._hosts, self._seconds = app, frozenset(map(str.lower, hosts)), seconds
        self._most_bytes, self._most_file_bytes, self._report = most_bytes, most_file_bytes, report

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = self._sending(scope, send)
        try:
            body = await self._checked(scope, receive)
            await self._app(scope, _replaying(body, receive), send)
        except _RefusedError as refused:
            await _refuse(send, refused.status, str(refused))
        except _GoneError:
            # Nobody is there to be told.
            return
        except Exception:
            # What is around this makes a response of it.
            self._report(_path_of(scope), 500)
            raise

    async def _checked(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """The body of a request that may be looked at.  Raises _RefusedError for one that may not, _GoneError."""
        headers = dict(scope["headers"])
        host = PORT.sub("", headers.get(b"host", b"").decode("latin-1")).lower()
        if self._hosts and host not in self._hosts:
            raise _RefusedError(
                421, f"this server is not {host!r:.80}; ask it by its own name, or give it this one by --known-as"
            )
        most = self._most_file_bytes if scope["method"] == "PUT" else self._most_bytes
        try:
            body = await asyncio.wait_for(_read(headers, receive, most), self._seconds)
        except TimeoutError:
            raise _RefusedError(
                408, f"the body did not arrive within {self._seconds:g} seconds; send it faster"
            ) from None
        if body and scope["method"] == "POST" and not JSON.match(headers.get(b"content-type", b"")):
            raise _RefusedError(415, "the body has to be JSON; send it with the header Content-Type: application/json")
        return body

    def _sending(self, scope: MutableMapping[str, Any], send: Send) -> Send:
        """With the headers that all responses have; each is reported."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._report(_path_of(scope), message["status"])
                given = message.get("headers", [])
                # Unless another guard, behind this one, has set them.
                message = {**message, "headers": [*given, *(header for header in HEADERS if header not in given)]}
            await send(message)

        return sending


class _RefusedError(Exception):
    """With a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _GoneError(Exception):
    """Whoever asked has gone."""


def _path_of(scope: MutableMapping[str, Any]) -> str:
    """As the route has it, so that there are as many as there are routes."""
    return getattr(scope.get("route"), "path", None) or "other"


async def _read(headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes:
    """The whole body.  Raises _RefusedError where it is too large, _GoneError where its end does not come."""
    length = headers.get(b"content-length", b"0").lstrip(b"0")
    is_too_large = length.isdigit() and (len(length) > LONGEST_NUMBER or int(length) > most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        part = message.get("body", b"")
        size += len(part)
        is_too_large = is_too_large or size > most
        if is_too_large:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body") or (is_too_large and size > most + MOST_DROPPED):
            break
    if is_too_large:
        raise _RefusedError(413, f"the body is larger than {most:,} bytes; send less")
    return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """What is received once the body has been: first that, then what comes from outside."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(send: Send, status: int, sentence: str) -> None:
    error = {"message": sentence, "type": "invalid_request_error", "param": None, "code": None}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
