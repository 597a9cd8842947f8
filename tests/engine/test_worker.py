"""The thread that does the work: asked by many, and closed in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from receptance.engine import BusyError, Engine, Request, Worker
from receptance.errors import InputError
from receptance.generation import Sampling

from .listening import Heard, engine_of, serve


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_lanes_are_served_in_turn_from_many_threads() -> None:
    one = Request(tokens=[0], max_tokens=6, sampling=Sampling(seed=3))
    asked = [replace(one, tokens=[n, 2], noise=n, lane="ab"[n % 2]) for n in range(24)]
    heard = [Heard() for _ in asked]
    with Worker({"a": engine_of("7"), "b": engine_of("6")}) as worker:
        threads = [threading.Thread(target=worker.submit, args=pair) for pair in zip(asked, heard, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: all(h.reason for h in heard))
        assert worker.num_unfinished == 0
        with pytest.raises(InputError, match="no model 'c'; choose one of: a, b"):
            worker.submit(Request(tokens=[1], lane="c"), Heard())
    for place, name in ((0, "7"), (1, "6"), (22, "7")):
        assert heard[place].told == serve(engine_of(name), [asked[place]])[0].told


def test_cancelling_from_elsewhere() -> None:
    with Worker({"": engine_of(slots=2)}) as worker:
        heard = [Heard() for _ in range(4)]
        tickets = [worker.submit(Request(tokens=[1], max_tokens=10**6), listener) for listener in heard]
        wait_for(lambda: len(heard[1].tokens) > 3)
        for ticket in tickets:
            worker.cancel(ticket)
        wait_for(lambda: all(h.reason == "cancelled" for h in heard), 2)


def test_calls_come_between_steps() -> None:
    with Worker({"": engine_of()}) as worker:
        assert worker.call(lambda: threading.current_thread().name).result(5) == "engine"
        with pytest.raises(ZeroDivisionError):
            worker.call(lambda: 1 // 0).result(5)
        assert worker.is_alive and worker.seconds_in_step() == 0.0


def test_draining_finishes_and_refuses() -> None:
    worker = Worker({"": engine_of()})
    heard = Heard()
    worker.submit(Request(tokens=[1, 2], max_tokens=30), heard)
    assert worker.drain(20)
    assert heard.reason == "length" and len(heard.tokens) == 30
    with pytest.raises(BusyError, match="no more requests"):
        worker.submit(Request(tokens=[1]), Heard())
    worker.close()
    assert not worker.is_alive


def test_closing_ends_what_is_left() -> None:
    worker = Worker({"": engine_of(slots=1)})
    heard = [Heard(), Heard()]
    for listener in heard:
        worker.submit(Request(tokens=[1], max_tokens=10**6), listener)
    wait_for(lambda: bool(heard[0].tokens))
    assert not worker.drain(0.1)
    worker.close()
    assert [h.reason for h in heard] == ["error", "error"] and "stopped" in heard[0].error


def test_a_step_that_fails_ends_what_was_served_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of()
    with Worker({"": engine}) as worker:
        step = Engine._continue

        def broken(self: Engine) -> None:
            monkeypatch.setattr(Engine, "_continue", step)
            raise MemoryError("no memory is left\nat all")

        monkeypatch.setattr(Engine, "_continue", broken)
        first, second = Heard(), Heard()
        worker.submit(Request(tokens=[1], max_tokens=3), first)
        wait_for(lambda: first.reason is not None)
        assert first.reason == "error" and first.error == "the computation failed: no memory is left"
        worker.submit(Request(tokens=[1], max_tokens=3), second)
        wait_for(lambda: second.reason == "length")
