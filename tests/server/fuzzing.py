"""Requests made up out of the server's own description of itself, right ones and wrong ones; all must be answered."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode

from receptance.server import Settings

from .serving import NAME, Server, serving

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
# Names that some of the requests should hit.
NAMES = {"model": [NAME, "another"], "state": ["a", "b"], "save_state": ["a", "b"], "name": ["a", "b"]}
# Seconds in which a request of this size has to be answered.
LONGEST = 30.0


@dataclass
class Answered:
    """How many of them in which way; `slowest` in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def num_requests(self) -> int:
        return self.statuses.total()


@contextmanager
def small_server() -> Iterator[Server]:
    """Whose answers are short, so that what is long is the asking."""
    few = {"slots": 16, "waiting": 256, "most_new_tokens": 4, "most_prompt_tokens": 2048}
    with serving(Settings(most_bytes=2**20), **few) as running:
        yield running


def description(server: Server) -> dict[str, Any]:
    """/openapi.json with names that exist where a name is asked for."""
    found: dict[str, Any] = server.json("GET", "/openapi.json")
    for kind in found["components"]["schemas"].values():
        for name, values in NAMES.items():
            if kind.get("type") == "object" and "model" in kind.get("properties", {}) and name in kind["properties"]:
                kind["properties"][name] = {"enum": values}
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in NAMES:
                    parameter["schema"] = {"enum": NAMES[parameter["name"]]}
    return found


def ask_everything(server: Server, num_requests: int, number: int = 0) -> Answered:
    """So many requests, most to where there is a body; raises AssertionError where one is not answered well."""
    schema = schemathesis.openapi.from_dict(description(server))
    operations = [found.ok() for found in schema.get_all_operations()]
    with_body = [operation for operation in operations if operation.body]
    answered, session = Answered(), requests.Session()
    for round_number in count(number):
        # At first a few of each kind, so that whatever is simply wrong shows soon.
        each = min(10, num_requests // len(operations)) if round_number == number else 200
        for operation in operations if round_number == number else with_body:
            for mode in MODES:
                if answered.num_requests >= num_requests:
                    return answered
                # Where there is nothing to be said, nothing can be said wrongly.
                with suppress(Unsatisfiable):
                    _ask(server, session, operation.as_strategy(generation_mode=mode), each, round_number, answered)
    raise AssertionError("there is no last round")


def _ask(
    server: Server,
    session: requests.Session,
    cases: SearchStrategy[Any],
    num_examples: int,
    number: int,
    answered: Answered,
) -> None:
    @seed(number)
    @settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        begun = time.monotonic()
        response = case.call(base_url=server.address, session=session, timeout=LONGEST)
        answered.slowest = max(answered.slowest, time.monotonic() - begun)
        answered.statuses[response.status_code] += 1
        _check(response.status_code, response.headers.get("content-type", [""])[0], response.content)

    ask()


def _check(status: int, kind: str, content: bytes) -> None:
    assert status < 500, (status, content[:500])
    if kind == "application/json":
        body = json.loads(content)
        assert status < 400 or body["error"]["message"], content[:500]
    if kind.startswith("text/event-stream"):
        assert content.endswith(b"data: [DONE]\n\n"), content[-500:]
