"""The application of `receptance.server` by Ray Serve: replicas of it on many machines, and a door in front of them.

    run(Recipe(model="rwkv7-g1-1.5b", name="g1"), replicas=Replicas.of("2:8"))      # until Ctrl-C
    serve.run(application(recipe, settings, Replicas(4)))                           # or in Ray's own ways

Requests of one conversation reach one replica, which remembers it, by Ray's consistent hashing of session ids: it needs
no table of sessions, every door comes to the same result, and only the sessions of a replica that ends move.  (Model
multiplexing, the older way, learns a moment too late where a session is.)  A model has to be found under the same name
on every machine, and `Options.store` has to be a folder that all of them see.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import serve
from starlette.applications import Starlette

from ..errors import InputError, ReceptanceError
from ..server import Recipe, Settings
from .door import door_app
from .replica import Replica

log = logging.getLogger(__name__)
NAME = "receptance"
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
# Streams that one door passes on without holding them up.
STREAMS_OF_A_DOOR = 64
QUIET = {"log_level": "WARNING", "enable_access_log": False}


@dataclass(frozen=True)
class Replicas:
    """How many there are: as many as there is work for, within bounds."""

    least: int = 1
    most: int = 1

    @classmethod
    def of(cls, text: str) -> Replicas:
        """As `4` or `2:8`.  Raises InputError for anything else."""
        least, colon, most = text.partition(":")
        if least.isdecimal() and (most.isdecimal() if colon else True):
            found = cls(int(least), int(most if colon else least))
            if 1 <= found.least <= found.most:
                return found
        raise InputError(f"replicas are a number, as 4, or the least and the most of them, as 2:8; got {text!r}")

    def scaling(self, at_a_time: int) -> dict[str, int]:
        """One for each so many requests that are served or wait, in Ray's words."""
        return {"min_replicas": self.least, "max_replicas": self.most, "target_ongoing_requests": at_a_time}


def application(
    recipe: Recipe,
    settings: Settings | None = None,
    replicas: Replicas | None = None,
    resources: Mapping[str, Any] | None = None,
    drain_seconds: int = 30,
) -> serve.Application:
    """What `serve.run` takes.

    resources       of a replica, as Ray knows them: {"num_gpus": 1}, {"num_cpus": 8}
    drain_seconds   that answers have when a replica is to end
    """
    chosen, replicas, options = settings or Settings(), replicas or Replicas(), recipe.options
    recipe = replace(recipe, options=replace(options, shares_store=True))
    at_a_time = options.slots + options.waiting
    models = serve.deployment(
        autoscaling_config=replicas.scaling(options.slots),
        max_ongoing_requests=at_a_time,
        graceful_shutdown_timeout_s=drain_seconds,
        ray_actor_options=dict(resources or {}),
        request_router_config={"request_router_class": ROUTER},
    )(Replica)

    def build() -> Starlette:
        here = serve.get_replica_context().app_name
        return door_app(serve.get_deployment_handle(Replica.__name__, here), chosen)

    doors = serve.deployment(
        name="Door",
        autoscaling_config=Replicas(1, replicas.most).scaling(STREAMS_OF_A_DOOR),
        max_ongoing_requests=at_a_time * replicas.most,
        ray_actor_options={"num_cpus": 0},
    )(serve.ingress(build)())
    return doors.bind(models.bind(recipe, chosen, os.getcwd()))


def run(
    recipe: Recipe,
    settings: Settings | None = None,
    replicas: Replicas | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_seconds: int = 30,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve on the cluster that RAY_ADDRESS or `ray start` names, else on one of this machine alone, until a signal.

    Raises ReceptanceError where the replicas do not start.
    """
    replicas = replicas or Replicas()
    # Nobody is told of what is done here, unless the user wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
        resources = resources_of(ray.nodes(), replicas, recipe.loading.get("device"))
        try:
            _start(application(recipe, settings, replicas, resources, drain_seconds))
            on_start()
            _wait()
        finally:
            serve.delete(NAME)
    finally:
        ray.shutdown()


def resources_of(nodes: Sequence[Mapping[str, Any]], replicas: Replicas, device: Any = None) -> dict[str, int]:
    """Of each replica: a GPU, where there are some and nothing else is wanted, or the most cores that all can have."""
    gpus = _room(nodes, "GPU", 1) if str(device or "cuda").startswith("cuda") else 0
    most = int(max((node["Resources"].get("CPU", 0) for node in nodes), default=0))
    cpus = next((cpus for cpus in range(most, 1, -1) if _room(nodes, "CPU", cpus) >= replicas.most), 1)
    if (room := gpus or _room(nodes, "CPU", cpus)) < replicas.least:
        log.warning("the cluster has room for %d of %d replicas; the others wait for machines", room, replicas.least)
    return {"num_gpus": 1} if gpus else {"num_cpus": cpus}


def _room(nodes: Sequence[Mapping[str, Any]], kind: str, each: int) -> int:
    """How many replicas the machines can give so much to."""
    return sum(int(node["Resources"].get(kind, 0)) // each for node in nodes if node["Alive"])


def _start(app: serve.Application) -> None:
    try:
        serve.run(app, name=NAME, logging_config=QUIET)
    except RuntimeError as error:
        raise ReceptanceError(f"the replicas do not start: {_why() or error}") from error


def _why() -> str:
    """What a replica said in the end: a traceback's last line."""
    found = serve.status().applications.get(NAME)
    said = "\n".join(deployment.message for deployment in found.deployments.values()) if found else ""
    return said.rstrip().rpartition("\n")[2].partition(": ")[2]


def _wait() -> None:
    """Until SIGTERM or Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    # A second one does not wait for answers.
    signal.signal(signal.SIGINT, signal.default_int_handler)
