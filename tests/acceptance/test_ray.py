"""`make acceptance PART=ray`: the command on a Ray cluster of this machine grows under load, heals, and ends in order.

It takes two minutes, most of them Ray's own patience before it starts another replica; needs the extra `ray`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import torch

from receptance import Config
from receptance.checkpoints import save_checkpoint
from tests.models.cases import noisy

pytest.importorskip("ray.serve", reason="needs Ray: pip install 'receptance[ray]'")

Found = TypeVar("Found")
STARTING, GROWING, ENDING = 60, 150, 40


class Server:
    """The command, from its start to its end."""

    def __init__(self, folder: Path, *options: str) -> None:
        config = Config(version="7", vocab_size=256, num_layers=2, dim=64, head_size=32)
        save_checkpoint(noisy(config, torch.float32), folder / "model.pth")
        command = [sys.executable, "-m", "receptance", "serve", "model.pth", "--tokenizer", "bytes", "--ray", *options]
        self.said = folder / "said"
        self.process = subprocess.Popen(command, cwd=folder, stderr=self.said.open("w"))
        found = wait_for(lambda: re.search(r"(http://\S+) is a page", self.said.read_text()), STARTING)
        assert found is not None, self.said.read_text()
        self.client = httpx.Client(base_url=found[1], timeout=120)

    def ask(self, session: str, max_tokens: int = 4) -> str:
        """The replica that has answered."""
        body = {"model": "model", "prompt": "Once", "max_tokens": max_tokens, "temperature": 0}
        response = self.client.post("/v1/completions", json=body, headers={"x-session-id": session})
        assert response.status_code == 200, response.text
        return response.headers["x-replica"]

    def replicas(self) -> set[str]:
        """All that answer."""
        return {self.ask(f"session {number}") for number in range(20)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path, "--port", "0", "--replicas", "1:2", "--slots", "1", "--store", "kept", "--device", "cpu")
    yield found
    found.process.kill()
    found.process.wait()


def test_it_grows_under_load_and_heals(server: Server) -> None:
    assert len(server.replicas()) == 1
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            server.ask("busy", max_tokens=200)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    clock = time.monotonic()
    grown = wait_for(lambda: len(server.replicas()) == 2, GROWING)
    print(f"\na second replica after {time.monotonic() - clock:.0f} s")
    ending.set()
    for thread in threads:
        thread.join()
    assert grown

    before = server.replicas()
    end_one(before)
    clock = time.monotonic()
    # Every request is answered, while another replica starts.
    assert wait_for(lambda: len(now := server.replicas()) == 2 and now != before, STARTING)
    print(f"a new replica in the place of one that was killed after {time.monotonic() - clock:.0f} s")

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(ENDING) == 0
    # It says where it is, and has nothing to complain of.
    assert "Traceback" not in server.said.read_text()


def end_one(replicas: set[str]) -> None:
    """Kills it, as the system would that has no memory left."""
    ended = min(replicas)
    code = (
        "import ray; ray.init('auto', logging_level='ERROR')\n"
        f"[actor] = [one for one in ray.util.list_named_actors(True) if one['name'].endswith('#{ended}')]\n"
        "ray.kill(ray.get_actor(**actor))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def wait_for(what: Callable[[], Found], seconds: float) -> Found:
    until = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.5)
    return found
