"""Servers to ask: one in a thread of this process, and the real command.  Their model says printed letters only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from receptance.checkpoints import save_checkpoint
from receptance.language_model import LanguageModel
from receptance.models import RWKV
from receptance.server import Options, Service, Settings, create_app
from receptance.server.launch import bind
from receptance.templates import TEMPLATES
from receptance.tokenizers import ByteTokenizer

from ..conftest import ROOT
from ..small_models import speaking

NAME = "small"
# The template has thoughts and tools.
FILE = "rwkv7-g1-small.pth"
USER = {"role": "user", "content": "Hello"}
# More than any test waits for.
PATIENCE = 60.0


def language_model(model: RWKV | None = None) -> LanguageModel:
    """A model of bytes that never comes to an end by itself."""
    return LanguageModel(model or speaking(), Path(FILE), NAME, ByteTokenizer(), TEMPLATES["g1"])


@dataclass
class Server:
    """One that runs.

    web     asks it; the paths are given from the root
    """

    address: str
    web: httpx.Client
    service: Service

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def chat(self, *messages: Mapping[str, Any], headers: Mapping[str, str] | None = None, **fields: Any) -> Any:
        """The body of an answer."""
        body = {"model": NAME, "messages": messages or [USER], **fields}
        return self.json("POST", "/v1/chat/completions", json=body, headers=headers)

    def complete(self, prompt: Any = "Once", **fields: Any) -> Any:
        """The body of a continuation."""
        return self.json("POST", "/v1/completions", json={"model": NAME, "prompt": prompt, **fields})

    def json(self, method: str, path: str, **sent: Any) -> Any:
        """What is answered where all goes well."""
        response = self.web.request(method, path, **sent)
        assert response.status_code == 200, response.text
        return response.json()

    @contextmanager
    def stream(self, path: str = "/v1/completions", **fields: Any) -> Iterator[Iterator[Any]]:
        """The chunks of an answer while it is given; whoever leaves early cuts the connection."""
        subject = {"messages": [USER]} if "chat" in path else {"prompt": "Once"}
        body = {"model": NAME, **subject, "stream": True, **fields}
        with self.web.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
            assert response.status_code == 200, response.text
            yield chunks(response)

    def metric(self, name: str, **labels: str) -> float:
        """One of the numbers for Prometheus; the sum of those with these labels."""
        return metric(self.web.get("/metrics").text, name, **labels)

    def wait_for(self, name: str, wanted: float, seconds: float = PATIENCE) -> float:
        """Until a number is as wanted; how long that took."""
        begun = time.monotonic()
        wait_for(lambda: self.metric(name) == wanted, seconds, lambda: f"{name} is {self.metric(name)}, not {wanted}")
        return time.monotonic() - begun

    def is_well(self) -> None:
        """Whether it still answers."""
        assert self.web.get("/health").status_code == 200
        assert self.complete(max_tokens=2)["usage"]["completion_tokens"] == 2


def chunks(response: httpx.Response) -> Iterator[Any]:
    """The events of a stream; it must end as one does."""
    for line in response.iter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream broke off")


def metric(page: str, name: str, **labels: str) -> float:
    """Out of Prometheus' text."""
    from prometheus_client.parser import text_string_to_metric_families

    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"receptance_{name}" and labels.items() <= sample.labels.items()
    ]
    return sum(found)


def wait_for(
    condition: Callable[[], bool], seconds: float = PATIENCE, why: Callable[[], str] = lambda: "it did not happen"
) -> None:
    """Looks again and again."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, why()
        time.sleep(0.01)


@contextmanager
def serving(settings: Settings | None = None, *, model: RWKV | None = None, **options: Any) -> Iterator[Server]:
    """A server of this process, at a free port."""
    service = Service(language_model(model), NAME, Options(**options))
    listening = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = create_app(service, settings or Settings())
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", http="h11", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="server")
    thread.start()
    try:
        wait_for(lambda: server.started and service.is_ready.is_set())
        with httpx.Client(base_url=address, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)) as web:
            yield Server(address, web, service)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
        # Once more, by the thread that made it: it alone can give a folder back.
        service.close()


# ---- the real command


def checkpoint(folder: Path) -> Path:
    """The model as a file."""
    path = folder / FILE
    save_checkpoint(speaking(), path)
    return path


class Command:
    """`receptance serve` as a process; `said` is what it printed until it served."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        one_core = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "receptance", "serve", *arguments],
            cwd=folder,
            env={**os.environ, **one_core},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stderr is not None
        while (found := re.search(r"(http://\S+) is a page", self.said)) is None:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.address = found[1]
        # A pipe that is full would hold the process up.
        self._log: list[str] = []
        self._reader = threading.Thread(target=self._log.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> tuple[int, str]:
        """Its exit code, and what it printed since it served."""
        code = self.process.wait(seconds)
        self._reader.join(PATIENCE)
        return code, "".join(self._log)

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.address + "/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def command(folder: Path, *options: str) -> Iterator[Command]:
    """The real command, ready to answer; it is killed in the end if it still runs."""
    running = Command([FILE, "--tokenizer", "bytes", "--port", "0", "--name", NAME, *options], folder)
    try:
        wait_for(running.is_ready)
        yield running
    finally:
        running.process.kill()
        running.process.wait()
