"""One request's answers on their way out: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from .access import Caller
from .answers import Event, Finished
from .bodies import ChatBodies, TextBodies
from .face import Face
from .failures import BrokenError, NotNowError, described
from .rendering import Rendered
from .schemas import GenerationRequest
from .service import Answering, Offer

log = logging.getLogger("receptance.server")
# Seconds without a token after which a stream says that it is still there.
BEAT = 15.0


@dataclass
class Telling:
    """One request's answers on their way out.

    ended           the ends of those that have ended
    first_token     seconds until anything of them came
    is_left         whether whoever asked has gone
    """

    face: Face
    body: GenerationRequest
    offer: Offer
    rendered: Sequence[Rendered]
    caller: Caller
    answering: Answering
    bodies: ChatBodies | TextBodies
    ended: dict[int, Finished] = field(default_factory=dict)
    first_token: float | None = None
    is_left: bool = False

    async def whole(self, http: Request) -> str:
        """All answers at once.  Raises what `_end` raises."""
        answers: list[list[Event]] = [[] for _ in self.answering.tickets]
        watching = asyncio.create_task(self._watch(http))
        try:
            while not self._is_over:
                for index, event in await self._take():
                    answers[index].append(event)
            await self._end()
        finally:
            watching.cancel()
        return self.bodies.whole(answers).model_dump_json(exclude_unset=True)

    async def stream(self) -> AsyncIterator[str]:
        """Server-sent events, until the last one."""
        try:
            async for line in self._chunks():
                yield line
        except Exception as error:
            status, failed, _ = described(error)
            if status == 500 and not isinstance(error, BrokenError):
                log.error("%s failed", self.bodies.head.id, exc_info=error)
            yield _line(failed)
        yield "data: [DONE]\n\n"

    def leave(self) -> None:
        """Nobody listens any more: what has not ended is cancelled, and counted once it has ended."""
        if not self._is_over:
            self.is_left = True
            self.answering.cancel()
            self.face.later(self._hear_out())

    async def _chunks(self) -> AsyncIterator[str]:
        for index in range(len(self.answering.tickets)):
            if (first := self.bodies.first(index)) is not None:
                yield _line(first)
        num_open = len(self.answering.tickets)
        while num_open:
            told = await self._take(BEAT)
            if not told:
                yield ": still here\n\n"
            for index, event in told:
                if isinstance(event, Finished):
                    num_open -= 1
                    if event.error:
                        raise self._broken(event.error)
                    if not num_open:
                        # Before the last chunk: whoever has seen that may go on from what was stored.
                        await self._end()
                yield _line(self.bodies.chunk(index, event))
        if self.bodies.include_usage:
            yield _line(self.bodies.last(self._ends))

    async def _watch(self, http: Request) -> None:
        """Cancels answers that nobody waits for any more."""
        while (await http.receive())["type"] != "http.disconnect":
            pass
        self.is_left = True
        self.answering.cancel()

    async def _take(self, seconds: float | None = None) -> list[tuple[int, Event]]:
        """The next events, or none where there is none for so many seconds."""
        told = await self.answering.mailbox.take(seconds)
        if told and self.first_token is None:
            self.first_token = time.monotonic() - self.answering.begun
        self.ended |= {index: event for index, event in told if isinstance(event, Finished)}
        if self._is_over:
            self._count()
        return told

    async def _hear_out(self) -> None:
        while not self._is_over:
            await self._take()

    @property
    def _is_over(self) -> bool:
        return len(self.ended) == len(self.answering.tickets)

    @property
    def _ends(self) -> list[Finished]:
        return [self.ended[index] for index in sorted(self.ended)]

    async def _end(self) -> None:
        """Stores what is to be stored.  Raises BrokenError where there is no answer, NotNowError at a server's end."""
        ends = self._ends
        if broken := next((end.error for end in ends if end.error), ""):
            raise self._broken(broken)
        if self.body.save_state is not None and ends[0].moment is not None and not self.is_left:
            keeping = (self.body.save_state, self.offer, self.caller, ends[0].moment, self.rendered[0])
            await asyncio.to_thread(self.face.keep, *keeping)

    def _broken(self, error: str) -> Exception:
        return NotNowError(error) if self.face.service.worker.is_draining else BrokenError(error)

    def _count(self) -> None:
        """What was used: for the caller's limits, for the metrics, for the log."""
        seconds = time.monotonic() - self.answering.begun
        ends = self._ends
        num_read = sum(end.num_prompt for end in ends[:: self.bodies.n])
        num_chosen = sum(end.num_tokens for end in ends)
        self.caller.used(num_read + num_chosen)
        metrics = self.face.metrics
        for end in ends:
            metrics.answers.labels("error" if end.error else "left" if self.is_left else end.reason).inc()
        metrics.seconds.observe(seconds)
        if self.first_token is not None and num_chosen:
            metrics.first_token.observe(self.first_token)
            metrics.next_token.observe((seconds - self.first_token) / max(1, num_chosen // len(ends)))
        log_request(self, seconds, num_read, num_chosen, ends)


class Streaming(StreamingResponse):
    """A stream, and what is to be done when it is over: also where whoever asked went away before it began."""

    def __init__(self, lines: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def log_request(
    telling: Telling, seconds: float, num_read: int, num_chosen: int, ends: Sequence[Finished]
) -> None:
    """One line of JSON a request, without a word of its texts."""
    said = {
        "id": telling.bodies.head.id,
        "caller": telling.caller.name,
        "model": telling.offer.id,
        "read": num_read,
        "cached": sum(end.num_cached for end in ends),
        "chosen": num_chosen,
        "reasons": [end.reason for end in ends],
        "first_token_seconds": None if telling.first_token is None else round(telling.first_token, 4),
        "seconds": round(seconds, 4),
        "left": telling.is_left,
    }
    log.info("%s", json.dumps(said))


def _line(body: BaseModel) -> str:
    return f"data: {body.model_dump_json(exclude_unset=True)}\n\n"
