"""What operators and clients ask of a server besides answers: its models, its health, its numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from fastapi import Depends, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ..generation import preset_for
from .access import Caller
from .face import Face
from .failures import NotNowError
from .rendering import SETTINGS
from .responses import Model, ModelAbout, ModelList


class Health(BaseModel):
    """How a server is."""

    status: Literal["ok", "starting"]
    waiting: int
    active: int
    slots: int


def add_operations(app: FastAPI, face: Face) -> None:
    """Models, health and metrics."""
    known = Depends(face.caller)

    @app.get("/v1/models", tags=["models"])
    async def models(caller: Caller = known) -> ModelList:
        """All that can be asked for."""
        return ModelList(object="list", data=[_model(face, name) for name in face.service.offers])

    @app.get("/v1/models/{model:path}", tags=["models"])
    async def model(model: str, caller: Caller = known) -> Model:
        """One of them."""
        return _model(face, face.offer(model).id)

    @app.get("/health", tags=["operations"])
    async def health() -> Health:
        """Whether the process does its work: 503 where it is stuck or ends, so that it can be started again."""
        return _health(face)

    @app.get("/ready", tags=["operations"])
    async def ready() -> Health:
        """Whether requests are served at once: 503 also while it starts."""
        found = _health(face)
        if found.status != "ok":
            raise NotNowError("the server is starting; ask again soon")
        return found

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics(caller: Caller = known) -> Response:
        """Numbers for Prometheus."""
        return Response(face.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _health(face: Face) -> Health:
    face.check()
    engines = face.service.worker.engines.values()
    return Health(
        status="ok" if face.service.is_ready.is_set() else "starting",
        waiting=sum(engine.num_waiting for engine in engines),
        active=sum(engine.num_active for engine in engines),
        slots=sum(engine.limits.slots for engine in engines),
    )


def _model(face: Face, name: str) -> Model:
    service = face.service
    config, template, defaults = service.lm.config, service.defaults.template, service.defaults
    think = defaults.think or template.default_think
    sampling = asdict(defaults.sampling or preset_for(template.name, think))
    about = ModelAbout(
        version=config.version,
        num_layers=config.num_layers,
        dim=config.dim,
        vocab_size=config.vocab_size,
        template=template.name,
        think_modes=list(template.think_modes),
        default_think=think,
        sampling={key: value for key, value in sampling.items() if key in SETTINGS and key != "logit_bias"},
        adapters=sorted(service.options.adapters or {}),
        states=sorted(service.options.states or {}),
    )
    return Model(id=name, object="model", created=service.created, owned_by="receptance", receptance=about)
