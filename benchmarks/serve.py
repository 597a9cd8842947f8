"""The server under load, beside llama.cpp's on the same weights.

    make bench-peers                            # once: llama.cpp and its server in an environment of their own
    python benchmarks/serve.py                  # some fifteen minutes; needs httpx
    python benchmarks/serve.py --model model.pth --quant none --only batch     # a model of yours

A model of RWKV-7's 0.1B shape with random weights answers through HTTP, in streams, as clients see it.  Measured are

    batch       tokens a second of 1, 2, 4 ... 32 streams at a time, each from a prompt of its own
    load        requests that arrive at random, whoever is still being served, with prompts and answers of all lengths:
                times to the first token and between tokens, at several rates
    sessions    conversations of three turns that share a system text of 2,000 tokens: times to the first token with a
                cache that knows them and without

llama.cpp's server takes part in the first two.  No answer ends early: the end of the text is never chosen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.cpu_models import Models
from benchmarks.cpu_peers import peers_python
from benchmarks.cpu_serve import ROOT
from benchmarks.protocol import report

WORK = ROOT / "benchmarks" / "work"
PARTS = ("batch", "load", "sessions")
STREAMS = (1, 2, 4, 8, 16, 32)
# Requests a second, as parts of what the server can do.
RATES = (0.25, 0.5, 0.75)
PROMPT, ANSWER = 64, 64
WORDS = ("river", "stone", "light", "winter", "paper", "garden", "music", "harbour", "silver", "question")


@dataclass
class Told:
    """What one stream showed: when it was asked for, and when each piece of it came."""

    asked: float
    times: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


@dataclass(frozen=True)
class Peer:
    """A server: its address and its model's name."""

    name: str
    address: str
    model: str

    async def stream(self, client: httpx.AsyncClient, prompt: str, num_tokens: int, **extra: Any) -> Told:
        """One continuation, token by token."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": num_tokens,
            "temperature": 1.0,
            "top_p": 0.5,
            "seed": 1,
            "stream": True,
            "logit_bias": {"0": -100},
            **extra,
        }
        told = Told(time.perf_counter())
        async with client.stream("POST", f"{self.address}/v1/completions", json=body, timeout=600) as response:
            if response.status_code != 200:
                raise RuntimeError(f"{self.name}: {response.status_code} {(await response.aread()).decode()[:300]}")
            async for _ in _pieces(response):
                told.times.append(time.perf_counter())
        return told


async def _pieces(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream that hold text."""
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            if chunk["choices"] and chunk["choices"][0]["text"]:
                yield chunk


def words(number: int, seed: int) -> str:
    """A text of about so many tokens."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(number))


async def batch(peer: Peer, streams: Sequence[int]) -> list[dict[str, Any]]:
    """Throughput by how many streams there are at a time."""
    rows = []
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:
        await peer.stream(client, words(8, 0), 8)
        for number in streams:
            start = time.perf_counter()
            prompts = [words(PROMPT, 1000 * number + row) for row in range(number)]
            told = await asyncio.gather(*(peer.stream(client, prompt, ANSWER) for prompt in prompts))
            seconds = time.perf_counter() - start
            # From when all are running to when the first one ends: the reading of prompts is another figure.
            begin, end = max(one.times[0] for one in told), min(one.times[-1] for one in told)
            within = sum(begin <= at <= end for one in told for at in one.times)
            rows.append(
                {
                    "server": peer.name,
                    "streams": number,
                    "tokens/s decoding": within / (end - begin) if end > begin else math.nan,
                    "tokens/s in all": number * ANSWER / seconds,
                    **_percentiles("first token", [one.first for one in told]),
                    **_percentiles("next token", [gap for one in told for gap in one.gaps]),
                }
            )
    return rows


async def load(peer: Peer, rate: float, seconds: float) -> dict[str, Any]:
    """An open loop: requests come at random, `rate` a second, with lengths as people's are."""
    chance, running = random.Random(7), []
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            prompt = words(min(1024, int(chance.lognormvariate(math.log(100), 1.0)) + 4), len(running))
            answer = min(256, int(chance.lognormvariate(math.log(48), 0.7)) + 2)
            running.append(asyncio.create_task(peer.stream(client, prompt, answer)))
            await asyncio.sleep(chance.expovariate(rate))
        told = await asyncio.gather(*running)
    return {
        "server": peer.name,
        "requests/s": rate,
        "requests": len(told),
        "tokens/s": sum(len(one.times) for one in told) / (time.perf_counter() - start),
        **_percentiles("first token", [one.first for one in told]),
        **_percentiles("next token", [gap for one in told for gap in one.gaps]),
    }


async def sessions(peer: Peer, number: int) -> list[dict[str, Any]]:
    """Three turns each after one long system text, with the cache and without."""
    system = words(2000, 99)
    rows = []
    async with httpx.AsyncClient() as client:
        for cached in (False, True):
            for session in range(number):
                text, firsts = system, []
                for turn in range(3):
                    text += f"\n\nUser: {words(20, 31 * session + turn)}\n\nAssistant:"
                    told = await peer.stream(client, text, 24, cache=cached)
                    firsts.append(told.first)
                    text += f" {words(24, session + turn)}"
                rows.append({"cache": cached, "session": session, "turns": firsts})
    return rows


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    return {f"{name} p{part}, ms": float(np.percentile(seconds, part)) * 1e3 for part in (50, 99)} if seconds else {}


@contextmanager
def served(name: str, model: str, command: Sequence[str | Path], port: int) -> Iterator[Peer]:
    """A server as a process of its own, once it answers."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 300
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} does not start: {' '.join(map(str, command))}")
            time.sleep(0.3)
        yield Peer(name, address, model)
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    for path in ("/ready", "/v1/models"):
        try:
            if httpx.get(address + path, timeout=5).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
    return False


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint of yours; then llama.cpp is left out")
    parser.add_argument("--quant", default="int8", choices=("int8", "int4", "none"))
    parser.add_argument("--peer-kind", default="Q8_0", help="how llama.cpp holds the same weights")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--streams", nargs="+", type=int, default=list(STREAMS))
    parser.add_argument("--seconds", type=float, default=40, help="of each load")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    python = None if args.model else peers_python()
    if python is None and args.model is None:
        print("llama.cpp is left out: `make bench-peers` installs it")
    models = Models(WORK, "rwkv7-0.1b", python, threads=os.cpu_count() or 1)
    rows: dict[str, list[dict[str, Any]]] = {"batch": [], "load": [], "sessions": []}
    for name, model, command, port in _servers(args, models, python):
        with served(name, model, command, port) as peer:
            _measure(peer, args, rows)
    done = [{"part": part, **row} for part in args.only if part != "sessions" for row in rows[part]]
    details = {"sessions": rows["sessions"], "ratios": _ratios(rows["batch"])}
    report("serve", done or rows["sessions"], args.out, details)


def _servers(
    args: argparse.Namespace, models: Models, python: Path | None
) -> Iterator[tuple[str, str, list[str | Path], int]]:
    """How the servers are started, ours first."""
    path, port = args.model or models.official(), free_port()
    ours: list[str | Path] = [sys.executable, "-m", "receptance", "serve", path, "--port", str(port), "--name", "m"]
    ours += [] if args.quant == "none" else ["--quant", args.quant]
    ours += [] if args.model else ["--tokenizer", "world"]
    yield "ours", "m", ours, port
    if python is not None:
        port, file = free_port(), models.gguf(args.peer_kind)
        settings = ["--model_alias", "m", "--n_ctx", "4096", "--n_threads", str(os.cpu_count()), "--port", str(port)]
        yield "llama.cpp", "m", [python, "-m", "llama_cpp.server", "--model", file, *settings], port


def _measure(peer: Peer, args: argparse.Namespace, rows: dict[str, list[dict[str, Any]]]) -> None:
    if "batch" in args.only:
        rows["batch"] += asyncio.run(batch(peer, args.streams))
    if "load" in args.only:
        # Of what ours can do, so that both meet the same load.
        best = max((row["tokens/s in all"] for row in rows["batch"] if row["server"] == "ours"), default=200.0)
        for part in RATES:
            rows["load"].append(asyncio.run(load(peer, part * best / 60, args.seconds)))
    if "sessions" in args.only and peer.name == "ours":
        rows["sessions"] += asyncio.run(sessions(peer, 3))


def _ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the figures amount to."""
    speeds = {(row["server"], row["streams"]): row["tokens/s decoding"] for row in rows}
    most = max((streams for _, streams in speeds), default=1)
    found = {}
    if ("ours", 1) in speeds:
        found[f"{most} streams to one"] = speeds["ours", most] / speeds["ours", 1]
    if ("llama.cpp", most) in speeds:
        found[f"ours to llama.cpp at {most} streams"] = speeds["ours", most] / speeds["llama.cpp", most]
    return found


if __name__ == "__main__":
    main()
