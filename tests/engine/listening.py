"""Listeners that keep what they hear, and engines of small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from receptance.engine import Chosen, EndReason, Engine, Limits, Request, StateCache
from receptance.models import RWKV
from receptance.state import State
from tests.models.cases import CONFIGS, noisy


class Heard:
    """Hears everything; `until` says whether an answer goes on."""

    def __init__(self, until: Callable[[list[int]], bool] = lambda tokens: True) -> None:
        self.until = until
        self.num_cached: int | None = None
        self.told: list[Chosen] = []
        self.reason: EndReason | None = None
        self.state: State | None = None
        self.error = ""

    @property
    def tokens(self) -> list[int]:
        return [chosen.token for chosen in self.told]

    def read(self, num_cached: int) -> None:
        assert self.num_cached is None and self.reason is None
        self.num_cached = num_cached

    def chosen(self, chosen: Chosen) -> bool:
        assert self.num_cached is not None and self.reason is None
        self.told.append(chosen)
        return self.until(self.tokens)

    def ended(self, reason: EndReason, state: State | None, error: str = "") -> None:
        assert self.reason is None
        self.reason, self.state, self.error = reason, state, error


def engine_of(name: str = "7", *, slots: int = 4, piece: int = 8, budget: int = 16, waiting: int = 100) -> Engine:
    """Of a model with seeded weights; a small vocabulary."""
    return Engine(model_of(name), StateCache(2**24), Limits(slots, waiting, piece, budget))


def model_of(name: str = "7") -> RWKV:
    return noisy(CONFIGS[name]).eval()


def serve(engine: Engine, requests: Sequence[Request], arrivals: Sequence[int] | None = None) -> list[Heard]:
    """Everything until it has ended; request i arrives before step `arrivals[i]`."""
    heard = [Heard() for _ in requests]
    arrivals = [0] * len(requests) if arrivals is None else arrivals
    order = sorted(range(len(requests)), key=arrivals.__getitem__)
    step = 0
    while True:
        while order and arrivals[order[0]] <= step:
            row = order.pop(0)
            engine.submit(requests[row], heard[row])
        if not engine.step() and not order:
            return heard
        step += 1
        assert step < 100_000


def alone(engine: Callable[[], Engine], request: Request) -> Heard:
    """By an engine of its own."""
    return serve(engine(), [request])[0]
