"""The thread that does the work: everybody else asks it.

    with Worker({"": engine, "poet": adapted}) as worker:
        number = worker.submit(Request(tokens=[0, 24281]), listener)
        worker.cancel(number)
        state = worker.call(lambda: engine.read(tokens)).result()
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TypeVar

from ..errors import InputError
from .engine import Engine
from .request import EndingError, Listener, Request

log = logging.getLogger(__name__)
T = TypeVar("T")
# Seconds between looks at what asks for nothing but may have become late.
PATIENCE = 0.5


class Worker:
    """Engines that take turns in one thread, by the names of their lanes.

    All methods may be called by any thread.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.engines = dict(engines)
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._is_draining = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, listener: Listener) -> tuple[str, int]:
        """Takes a request on; returns what `cancel` wants.

        Raises InputError for one that cannot be served, StateError where its state does not fit, BusyError where too
        many are waiting, EndingError where no more are taken.
        """
        if request.lane not in self.engines:
            raise InputError(f"there is no model {request.lane!r}; choose one of: {', '.join(self.engines)}")
        if self._is_draining:
            raise EndingError("no more requests are taken, what is being served is finished first", 10.0)
        number = self.engines[request.lane].submit(request, listener)
        self._notify()
        return request.lane, number

    def cancel(self, ticket: tuple[str, int]) -> None:
        """Ends a request before the next step; nothing happens where it has ended."""
        lane, number = ticket
        self.engines[lane].cancel(number)
        self._notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have something done between two steps, in the thread that may use the models."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._calls.append(do)
        self._notify()
        return future

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or are served."""
        return sum(engine.num_waiting + engine.num_active for engine in self.engines.values())

    @property
    def is_draining(self) -> bool:
        """Whether no more requests are taken."""
        return self._is_draining

    @property
    def is_alive(self) -> bool:
        """Whether the thread does its work."""
        return self._thread.is_alive() and not self._is_closed

    def seconds_in_step(self) -> float:
        """How long the present step has taken so far; 0.0 between steps."""
        begun = [engine.stats.since for engine in self.engines.values()]
        return max((time.monotonic() - since for since in begun if since is not None), default=0.0)

    def begin_draining(self) -> None:
        """Takes no more requests."""
        self._is_draining = True

    def drain(self, seconds: float) -> bool:
        """Takes no more requests and waits for those that are here; whether all of them ended in time."""
        self.begin_draining()
        until = time.monotonic() + seconds
        while self.num_unfinished and time.monotonic() < until and self.is_alive:
            time.sleep(0.01)
        return not self.num_unfinished

    def close(self) -> None:
        """Ends what is left, and the thread."""
        self._is_draining = self._is_closed = True
        self._notify()
        self._thread.join()
        for cache in {id(engine.cache): engine.cache for engine in self.engines.values()}.values():
            cache.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        while not self._is_closed:
            while self._calls:
                self._calls.popleft()()
            if not any([self._step(engine) for engine in self.engines.values()]):
                with self._wake:
                    if not self._calls and not self._is_closed and not self.num_unfinished:
                        self._wake.wait(PATIENCE)
        for engine in self.engines.values():
            engine.fail("the server was stopped")
        while self._calls:
            self._calls.popleft()()

    @staticmethod
    def _step(engine: Engine) -> bool:
        try:
            return engine.step()
        except Exception as error:
            # Whatever it is, nobody may wait for ever.
            log.exception("a step failed; what was being served is given up")
            engine.fail(f"the computation failed: {(str(error).splitlines() or [type(error).__name__])[0]}")
            return True
