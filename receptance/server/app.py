"""The HTTP face: OpenAI's endpoints, stored conversations, the page, and what operators look at.

app = create_app(service, Settings())          # an ASGI application, for uvicorn or any other server
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Scope

from .. import __version__
from .access import Caller
from .bodies import ChatBodies, Head, TextBodies
from .face import Face, Settings
from .failures import RESPONSES, add_handlers
from .guard import Guard
from .looking import add_look
from .operations import add_operations
from .rendering import Rendered, render_chat, render_prompts
from .responses import ChatCompletion, Completion
from .schemas import ChatRequest, CompletionRequest, GenerationRequest
from .service import Asked, Offer, Service
from .states import add_states
from .telling import Streaming, Telling

PAGE = Path(__file__).parent / "page"


def create_app(service: Service, settings: Settings | None = None) -> FastAPI:
    """The application of a service; it closes the service when it ends."""
    face = Face(service, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.get_running_loop().run_in_executor(None, service.warm_up)
        yield
        with suppress(Exception):
            await warming
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="receptance",
        version=__version__,
        description="RWKV language models, by OpenAI's interface.",
        lifespan=lifespan,
        responses=RESPONSES,
        # A path is what it is; where to go instead would be said by the Host header.
        redirect_slashes=False,
        # Its pages would load from elsewhere; the page here shows the schema.
        docs_url=None,
        redoc_url=None,
    )
    app.state.face = face
    add_handlers(app)
    _add_answers(app, face)
    add_states(app, face)
    add_look(app, face)
    add_operations(app, face)
    # Behind all routes, so that a wrong method at one of them is told from a path that there is not.
    app.router.default = _Page(directory=PAGE, html=True)
    if face.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(face.settings.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    chosen = face.settings
    app.add_middleware(
        Guard,
        hosts=chosen.hosts,
        most_bytes=chosen.most_bytes,
        most_file_bytes=chosen.most_file_bytes,
        seconds=chosen.body_seconds,
        report=face.metrics.count,
    )
    return app


class _Page(StaticFiles):
    """The files of the page; nothing else is there, whatever is to be done with it."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)
        return await super().get_response(path, scope)


def _add_answers(app: FastAPI, face: Face) -> None:
    known = Depends(face.caller)

    @app.post("/v1/chat/completions", response_model=ChatCompletion, tags=["answers"])
    async def chat(body: ChatRequest, http: Request, caller: Caller = known) -> Response:
        """An answer to a conversation, whole or as a stream."""
        offer = face.offer(body.model)

        def render() -> list[Rendered]:
            return [render_chat(body, face.service.defaults, face.before(body, offer, caller))]

        def bodies(rendered: Sequence[Rendered]) -> ChatBodies:
            return ChatBodies(**_asked(body, face))

        return await _answer(face, http, body, offer, caller, render, bodies)

    @app.post("/v1/completions", response_model=Completion, tags=["answers"])
    async def complete(
        body: CompletionRequest, http: Request, caller: Caller = known
    ) -> Response:
        """Continuations of texts, whole or as a stream."""
        offer = face.offer(body.model)

        def render() -> list[Rendered]:
            return render_prompts(body, face.service.defaults, face.before(body, offer, caller))

        def bodies(rendered: Sequence[Rendered]) -> TextBodies:
            echoes = [prompt.echo for prompt in rendered for _ in range(body.n or 1)] if body.echo else []
            return TextBodies(**_asked(body, face), echoes=echoes)

        return await _answer(face, http, body, offer, caller, render, bodies)


def _asked(body: ChatRequest | CompletionRequest, face: Face) -> dict[str, Any]:
    """What the bodies of the response need to know of the request."""
    prefix = "chatcmpl" if isinstance(body, ChatRequest) else "cmpl"
    return {
        "head": Head.of(prefix, body.model, f"receptance-{__version__}"),
        "tokenizer": face.service.defaults.tokenizer,
        "logprobs": body.logprobs is not None and body.logprobs is not False,
        "include_usage": bool(body.stream_options and body.stream_options.include_usage),
        "n": body.n or 1,
    }


async def _answer(
    face: Face,
    http: Request,
    body: GenerationRequest,
    offer: Offer,
    caller: Caller,
    render: Callable[[], list[Rendered]],
    bodies: Callable[[Sequence[Rendered]], ChatBodies | TextBodies],
) -> Response:
    """The response: begun here, so that what is refused is refused with a status."""
    face.check()
    owner = caller.name or (http.client.host if http.client else "")

    def prepare() -> tuple[list[Rendered], list[Asked]]:
        rendered = render()
        return rendered, face.service.asked(offer, body, rendered, owner)

    if body.save_state is not None:
        face.service.conversations.check_room(caller.name, body.save_state)
    with ExitStack() as going:
        going.enter_context(caller.asking())
        # It takes a while where texts are long, and nobody else should wait for it.
        rendered, asked = await asyncio.to_thread(prepare)
        answering = face.service.answer(asked)
        telling = Telling(face, body, offer, rendered, caller, answering, bodies(rendered))
        going.callback(telling.leave)
        if body.stream:
            # What was begun here ends with the stream.
            return Streaming(telling.stream(), going.pop_all().close)
        return Response(await telling.whole(http), media_type="application/json")
