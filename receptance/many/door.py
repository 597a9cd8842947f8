"""What stands in front of the replicas: it finds the session of a request, and passes on what the replica says.

    app = door_app(handle, Settings())            # an ASGI application, for an ingress deployment of Ray Serve

Ray's own HTTP proxy knows a session by a header alone.  Clients of OpenAI's send none, so their requests come here,
where the body is read.
"""

from __future__ import annotations

import logging
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from ..server import Settings
from ..server.failures import NotNowError, described
from ..server.guard import Guard
from ..server.metrics import merged
from .replica import Whole
from .sessions import session_key

log = logging.getLogger(__name__)
# What a replica is told of a request; the rest belongs to the server that took it.
TOLD = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server"),
)
GONE = NotNowError("the replica that was to answer has ended, others are there; ask again")


def door_app(replicas: DeploymentHandle[Any], settings: Settings) -> Starlette:
    """The application in front of a deployment of `Replica`s."""
    door = Door(replicas)
    guard = Middleware(
        Guard,
        hosts=settings.hosts,
        most_bytes=settings.most_bytes,
        most_file_bytes=settings.most_file_bytes,
        seconds=settings.body_seconds,
    )
    return Starlette(routes=[Route("/metrics", door.metrics), Mount("", app=door)], middleware=[guard])


class Door:
    """An ASGI application that asks a replica."""

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        key = session_key(dict(scope["headers"]), body)
        answers = self._replicas.options(stream=True, session_id=key).answer.remote(_told(scope), body)
        assert isinstance(answers, DeploymentResponseGenerator), "a stream was asked for"
        begun: Message | None = None
        try:
            async for messages in answers:
                for message in messages:
                    begun = begun or message
                    await send(message)
        except (RayError, RayServeException) as error:
            log.warning("a replica could not answer %s: %s", scope["path"], type(error).__name__)
            if begun is None:
                await _failed()(scope, receive, send)
            elif _is_stream(begun):
                await send({"type": "http.response.body", "body": _last_events()})
            else:
                raise
        finally:
            # Also where whoever asked has gone.
            answers.cancel()

    async def metrics(self, request: Request) -> Response:
        """The numbers of all replicas, each with the label `replica`."""
        asked = self._replicas.broadcast("whole", _told(request.scope), b"")
        told = [one for one in await asked.results_async(return_exceptions=True) if isinstance(one, Whole)]
        if refused := next((one for one in told if one.status != 200), None):
            return Response(refused.body, refused.status, media_type=refused.media_type)
        pages = {one.replica: one.body.decode() for one in told}
        return Response(merged(pages, "replica"), media_type=told[0].media_type) if told else _failed()


def _is_stream(start: Message) -> bool:
    return bool(dict(start["headers"]).get(b"content-type", b"").startswith(b"text/event-stream"))


def _last_events() -> bytes:
    _, failed, _ = described(GONE)
    return f"data: {failed.model_dump_json()}\n\ndata: [DONE]\n\n".encode()


def _failed() -> Response:
    status, failed, headers = described(GONE)
    return JSONResponse(failed.model_dump(), status, headers)


def _told(scope: Scope) -> Scope:
    return {name: scope[name] for name in TOLD if name in scope}
