"""What a server tells Prometheus: how busy it is, how fast, and how often the cache helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from ..engine import Engine, Worker

# Seconds.
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
NEXT_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One server's numbers."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "receptance_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.answers = Counter(
            "receptance_answers", "Answers by how they ended; left: nobody listened any more.", ["reason"],
            registry=self.registry,
        )
        self.first_token = Histogram(
            "receptance_time_to_first_token_seconds", "From a request to its first token.",
            buckets=FIRST_TOKEN, registry=self.registry,
        )
        self.next_token = Histogram(
            "receptance_time_per_token_seconds", "From a token of an answer to the next, on average over the answer.",
            buckets=NEXT_TOKEN, registry=self.registry,
        )
        self.seconds = Histogram(
            "receptance_request_seconds", "From a request to the end of its answers.", buckets=WHOLE,
            registry=self.registry,
        )
        self.registry.register(_Engines(worker))

    def count(self, path: str, status: int) -> None:
        """A response; `path` is one of few."""
        self.requests.labels(path, str(status)).inc()

    def page(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


def merged(pages: Mapping[str, str], label: str) -> bytes:
    """The pages of several servers, by their names, as one page; `label` tells whose a number is."""
    families: dict[str, Metric] = {}
    for server, page in pages.items():
        for told in text_string_to_metric_families(page):
            family = families.setdefault(told.name, Metric(told.name, told.documentation, told.type))
            for sample in told.samples:
                family.add_sample(sample.name, {label: server, **sample.labels}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Told(families.values()))
    return generate_latest(registry)


class _Told:
    """What was read elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Engines:
    """The engines' own counts, read when they are asked for."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        engines = self._worker.engines
        gauges: dict[str, tuple[str, Callable[[Engine], float]]] = {
            "queue": ("Requests that wait for a slot.", lambda engine: engine.num_waiting),
            "batch": ("Requests that are being read or continued.", lambda engine: engine.num_active),
            "slots": ("Requests that can be served at a time.", lambda engine: engine.limits.slots),
            "cache_bytes": ("Memory of states that are kept.", lambda engine: engine.cache.num_bytes),
            "cache_states": ("States that are kept.", lambda engine: len(engine.cache)),
        }
        for name, (about, value) in gauges.items():
            family = GaugeMetricFamily(f"receptance_{name}", about, labels=["model"])
            for lane, engine in engines.items():
                family.add_metric([lane], value(engine))
            yield family
        yield GaugeMetricFamily("receptance_step_seconds", "The present step, so far.", self._worker.seconds_in_step())

    def _counters(self) -> Iterator[Metric]:
        counters: dict[str, tuple[str, Callable[[Engine], float]]] = {
            "tokens_read": ("Tokens of prompts that were read.", lambda engine: engine.stats.tokens_read),
            "tokens_chosen": ("Tokens of answers.", lambda engine: engine.stats.tokens_chosen),
            "tokens_guessed": ("Tokens that were guessed.", lambda engine: engine.stats.tokens_guessed),
            "tokens_confirmed": ("Guesses that came true.", lambda engine: engine.stats.tokens_confirmed),
            "steps": ("Steps in which something was done.", lambda engine: engine.stats.steps),
            "cache_hits": ("Prompts with a known beginning.", lambda engine: engine.cache.counts.hits),
            "cache_misses": ("Prompts without.", lambda engine: engine.cache.counts.misses),
            "cache_saved_tokens": ("Tokens not read again.", lambda engine: engine.cache.counts.saved_tokens),
        }
        for name, (about, value) in counters.items():
            family = CounterMetricFamily(f"receptance_{name}", about, labels=["model"])
            for lane, engine in self._worker.engines.items():
                family.add_metric([lane], value(engine))
            yield family
        about = "What the engine has ended: stop for all that ended as they should."
        ended = CounterMetricFamily("receptance_sequences", about, labels=["model", "reason"])
        for lane, engine in self._worker.engines.items():
            for reason, number in list(engine.stats.ended.items()):
                ended.add_metric([lane, reason], float(number))
        yield ended
