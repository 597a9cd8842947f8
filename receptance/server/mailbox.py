"""From the engine's thread to asyncio: what listeners tell, in the order in which they tell it.

    mailbox = Mailbox(asyncio.get_running_loop())
    listener = AnswerListener(rendered, tokenizer, partial(mailbox.put, index))
    for index, event in await mailbox.take(): ...

Many events wake the loop once: under load it is woken once a step and not once a token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from .answers import Event


class Mailbox:
    """The events of some answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[int, Event]] = deque()
        self._arrived = asyncio.Event()
        self._is_woken = False

    def put(self, index: int, event: Event) -> None:
        """Called by any thread."""
        self._events.append((index, event))
        if not self._is_woken:
            self._is_woken = True
            # A loop that is closed has nobody who waits.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self, seconds: float | None = None) -> list[tuple[int, Event]]:
        """What has come and was not taken yet; waits until there is something, or so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        self._arrived.clear()
        # Before the look: what comes from now on wakes anew.
        self._is_woken = False
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken
