"""Continuous batching: requests come and go, and every step serves all that are there.  Token ids in, token ids out.

    engine = Engine(model, StateCache(2**30))
    with Worker({"": engine}) as worker:
        worker.submit(Request(tokens=[0, 24281], max_tokens=100), listener)

The model is a recurrent one: what a sequence remembers is a state of fixed size, whatever its length.
"""

from .cache import StateCache
from .engine import Engine, Limits, Stats
from .request import BusyError, Chosen, Constraint, EndingError, EndReason, Listener, Request
from .store import StateStore
from .worker import Worker

__all__ = [
    "BusyError",
    "Chosen",
    "Constraint",
    "EndReason",
    "EndingError",
    "Engine",
    "Limits",
    "Listener",
    "Request",
    "StateCache",
    "StateStore",
    "Stats",
    "Worker",
]
