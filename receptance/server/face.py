"""What the routes of a server share: who asks, what they ask for, and whether it can be served."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Header

from ..generation import Moment
from .access import Access, Caller
from .failures import NotHereError, NotNowError
from .metrics import Metrics
from .rendering import Rendered
from .schemas import GenerationRequest
from .service import Offer, Service
from .stored import Stored, new


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the face of a server is set up.

    access              who may ask
    hosts               names under which it may be asked; none: any
    origins             web pages of other servers that may ask it
    most_bytes          of a body; most_file_bytes: of a stored conversation that is sent as a file
    body_seconds        in which a body has to arrive
    stuck_seconds       of one step after which the server says that it is stuck
    """

    access: Access = field(default_factory=Access)
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    most_bytes: int = 2**25
    most_file_bytes: int = 2**28
    body_seconds: float = 60.0
    stuck_seconds: float = 120.0


class Face:
    """What the routes share."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.metrics = Metrics(service.worker)
        self._tasks: set[asyncio.Task[None]] = set()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that no request waits for."""
        task = asyncio.create_task(work)
        # The loop itself does not hold it.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def caller(self, authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> Caller:
        """Who asks.  Raises DeniedError where they may not."""
        return self.settings.access.caller(authorization)

    def offer(self, model: str) -> Offer:
        """What a request asks for.  Raises NotHereError where there is no such model."""
        offer = self.service.offer(model)
        if offer is None:
            names = ", ".join(self.service.offers)
            raise NotHereError(f"there is no model {model!r:.100}; there is {names}")
        return offer

    def trouble(self) -> str | None:
        """Why nothing can be served now, as a sentence; None where it can."""
        worker = self.service.worker
        if worker.is_draining or not worker.is_alive:
            return "the server is ending; ask another one"
        if worker.seconds_in_step() > self.settings.stuck_seconds:
            return f"one step has taken {worker.seconds_in_step():.0f} seconds: the server is stuck, start it again"
        return None

    def check(self) -> None:
        """Raises NotNowError where nothing can be served."""
        if (trouble := self.trouble()) is not None:
            raise NotNowError(trouble)

    def before(self, request: GenerationRequest, offer: Offer, caller: Caller) -> Moment | None:
        """What a request goes on from: the stored conversation, or where everything begins that the offer says."""
        if request.state is not None:
            return self.stored(request.state, offer, caller).moment
        return None if offer.start is None else Moment(state=offer.start)

    def stored(self, name: str, offer: Offer, caller: Caller) -> Stored:
        """A conversation, with its state where the model is.  Raises UnknownError, and NotHereError for another's."""
        found = self.service.conversations.get(caller.name, name)
        if found.model != offer.id:
            raise NotHereError(f"the conversation {name} was led with {found.model}; ask that")
        return found

    def keep(self, name: str, offer: Offer, caller: Caller, moment: Moment, rendered: Rendered) -> None:
        """Stores what a request led to."""
        template = self.service.defaults.template if rendered.template is None else rendered.template
        stored = new(name, offer.id, moment, template.name, rendered.think)
        self.service.conversations.put(caller.name, stored)
