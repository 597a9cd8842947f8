"""`make acceptance PART=serve`: 20,000 requests that nobody thought of, streams that are left, a thousand sessions.

The sessions ask the real command, in a process of its own, and each must end as it does alone: what any of them said
and heard decides its last answer, so one word of another's in its state would show.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.server.fuzzing import ask_everything, small_server
from tests.server.serving import NAME, Command, checkpoint, command, metric, wait_for

T = TypeVar("T")
NUM_REQUESTS, NUM_STREAMS, LENGTH, NUM_SESSIONS, NUM_TURNS = 20_000, 200, 200, 1000, 3
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    checkpoint(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    """A connection is a file, here and in the command, which inherits the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]) if before[1] > 0 else 8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def web(running: Command) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=running.address, timeout=None, limits=limits)


def at_once(work: Sequence[Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, list[T]]:
    async def all_of_it() -> list[T]:
        return list(await asyncio.gather(*work))

    return all_of_it()


def number(running: Command, name: str, **labels: str) -> float:
    return metric(httpx.get(running.address + "/metrics", timeout=60).text, name, **labels)


def resident(running: Command) -> float:
    """MiB of memory."""
    [line] = [line for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1024


# ---- requests that nobody thought of


def test_twenty_thousand_requests_out_of_the_schema() -> None:
    begun = time.monotonic()
    with small_server() as server:
        answered = ask_everything(server, NUM_REQUESTS)
        server.wait_for("batch", 0.0)
        server.is_well()
    seconds = time.monotonic() - begun
    print(f"\n{answered.num_requests:,} requests in {seconds:,.0f} s, the slowest in {answered.slowest:.2f} s")
    print(f"statuses: {dict(sorted(answered.statuses.items()))}")
    assert answered.num_requests >= NUM_REQUESTS and max(answered.statuses) < 500


# ---- streams that are left


async def listened(client: httpx.AsyncClient, seed: int, leaves_after: int | None = None) -> str:
    """A stream, to its end or to so many letters."""
    body = {"model": NAME, "prompt": f"Story {seed}", "stream": True, "max_tokens": LENGTH, "seed": seed}
    text = ""
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["text"]
            if leaves_after is not None and len(text) >= leaves_after:
                break
    return text


def test_half_of_two_hundred_streams_are_left(folder: Path) -> None:
    noise = random.Random(0)
    leaving = {seed: noise.randrange(LENGTH * 3 // 4) for seed in noise.sample(range(NUM_STREAMS), NUM_STREAMS // 2)}

    async def crowd(running: Command) -> list[str]:
        async with web(running) as client:
            return await at_once([listened(client, seed, leaving.get(seed)) for seed in range(NUM_STREAMS)])

    async def one_after_another(running: Command) -> list[str]:
        async with web(running) as client:
            return [await listened(client, seed) for seed in range(NUM_STREAMS)]

    with command(folder, "--slots", "32", "--queue", "256") as running:
        begun = time.monotonic()
        together = asyncio.run(crowd(running))
        seconds = time.monotonic() - begun
        wait_for(lambda: number(running, "batch") == 0 == number(running, "queue"), 5)
        cancelled = number(running, "sequences_total", reason="cancelled")
        alone = asyncio.run(one_after_another(running))
        running.signal()
        code, log = running.ended()
    for seed in range(NUM_STREAMS):
        assert alone[seed].startswith(together[seed]) and (seed in leaving or together[seed] == alone[seed])
    assert len(set(alone)) == NUM_STREAMS and all(len(text) == LENGTH for text in alone)
    assert code == 0 and "Traceback" not in log
    assert cancelled >= 0.9 * len(leaving)
    print(f"\n{NUM_STREAMS} streams in {seconds:.1f} s, {cancelled:.0f} of them cancelled")


# ---- a thousand sessions


@dataclass
class Session:
    """A conversation of some turns about a secret; the answers, and when their pieces came."""

    number: int
    answers: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def questions(self) -> list[str]:
        noise = random.Random(self.number)
        secret = " ".join(noise.choices(WORDS, k=4)) + f" {self.number}"
        return [f"Remember: {secret}.", "Tell me a story.", "What was it that I told you?"][:NUM_TURNS]

    async def lead(self, client: httpx.AsyncClient) -> None:
        messages: list[dict[str, str]] = []
        for question in self.questions():
            messages.append({"role": "user", "content": question})
            answer = await self._answer(client, messages)
            messages.append({"role": "assistant", "content": answer})
            self.answers.append(answer)

    async def _answer(self, client: httpx.AsyncClient, messages: list[dict[str, str]]) -> str:
        body = {"model": NAME, "messages": messages, "stream": True, "max_tokens": 32, "seed": self.number}
        text, last, is_first = "", time.monotonic(), True
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                piece = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if piece:
                    now = time.monotonic()
                    (self.first if is_first else self.gaps).append(now - last)
                    text, last, is_first = text + piece, now, False
        return text


def quantiles(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {1000 * cuts[49]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"


def test_a_thousand_sessions_end_as_each_does_alone(folder: Path) -> None:
    together, alone = ([Session(one) for one in range(NUM_SESSIONS)] for _ in range(2))

    async def crowd(running: Command) -> None:
        async with web(running) as client:
            await at_once([session.lead(client) for session in together])

    async def one_after_another(running: Command) -> None:
        async with web(running) as client:
            for session in alone:
                await session.lead(client)

    with command(folder, "--slots", "64", "--queue", "2048", "--cache", "0.25") as running:
        before, begun = resident(running), time.monotonic()
        asyncio.run(crowd(running))
        seconds, after = time.monotonic() - begun, resident(running)
        cached = number(running, "cache_saved_tokens_total")
        wait_for(lambda: number(running, "batch") == 0, 5)
    # By another process, which has read nothing.  With a cache, as the states at the ends of answers come out of it.
    with command(folder, "--slots", "1", "--cache", "0.25") as running:
        asyncio.run(one_after_another(running))
    for one, other in zip(together, alone, strict=True):
        assert one.answers == other.answers, one.number
    # Otherwise the comparison would show little.
    assert len({session.answers[-1] for session in alone}) == NUM_SESSIONS
    tokens = NUM_SESSIONS * NUM_TURNS * 32
    print(f"\n{NUM_SESSIONS:,} sessions with {NUM_TURNS} turns in {seconds:.1f} s: {tokens / seconds:,.0f} tokens/s")
    print(f"to the first piece: {quantiles([gap for one in together for gap in one.first])}")
    print(f"from piece to piece: {quantiles([gap for one in together for gap in one.gaps])}")
    print(f"alone: {quantiles([gap for one in alone for gap in one.gaps])}")
    print(f"resident memory {before:,.0f} MiB, then {after:,.0f} MiB; {cached:,.0f} tokens were not read again")
    assert after - before < 1024
