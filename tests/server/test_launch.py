"""The real command: how it ends, what it says where it cannot begin; and crowds that come, wait and leave."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from receptance.cli import app
from receptance.errors import InputError
from receptance.server.launch import bind, is_loopback

from .serving import FILE, NAME, PATIENCE, Command, Server, checkpoint, chunks, command, metric, serving, wait_for

if sys.platform == "win32":
    pytest.skip("Windows has no SIGTERM", allow_module_level=True)

SECRET = "xylophone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    checkpoint(folder)
    return folder


def streaming(web: httpx.Client, max_tokens: int) -> Any:
    body = {"model": NAME, "prompt": SECRET, "stream": True, "max_tokens": max_tokens, "seed": 1}
    return web.stream("POST", "/v1/completions", json=body)


def refuses(running: Command, web: httpx.Client | None = None) -> bool:
    """Whether it takes no more requests, by a connection of its own or by an older one."""
    try:
        body = {"model": NAME, "prompt": "Once", "max_tokens": 1}
        return (web or httpx).post(running.address + "/v1/completions", json=body).status_code == 503
    except httpx.TransportError:
        return True


# ---- how it ends


def test_a_signal_lets_streams_finish_and_takes_no_more(folder: Path) -> None:
    with command(folder, "--slots", "4") as running, httpx.Client(base_url=running.address, timeout=PATIENCE) as web:
        assert "RWKV-7" in running.said and "a page to chat on" in running.said
        waiting = httpx.Client(base_url=running.address)
        assert waiting.get("/health").status_code == 200
        with streaming(web, 3000) as response:
            told = chunks(response)
            text = next(told)["choices"][0]["text"]
            running.signal(signal.SIGTERM)
            until = time.monotonic() + 5
            while not refuses(running):
                assert time.monotonic() < until
            assert refuses(running, waiting)
            text += "".join(chunk["choices"][0]["text"] for chunk in told)
        code, log = running.ended()
    assert (code, len(text)) == (0, 3000)
    assert "Traceback" not in log and SECRET not in log
    [line] = [json.loads(line[line.index("{") :]) for line in log.splitlines() if '"chosen"' in line]
    assert line["chosen"] == 3000 and line["reasons"] == ["length"]


def test_a_second_signal_ends_at_once(folder: Path) -> None:
    with command(folder) as running, httpx.Client(base_url=running.address, timeout=PATIENCE) as web:
        with pytest.raises((httpx.TransportError, AssertionError)), streaming(web, 16384) as response:
            told = chunks(response)
            next(told)
            running.signal(signal.SIGTERM)
            time.sleep(0.3)
            assert running.process.poll() is None
            begun = time.monotonic()
            running.signal(signal.SIGINT)
            code, _ = running.ended(10)
            list(told)
        assert code == -signal.SIGINT and time.monotonic() - begun < 2


def test_what_takes_too_long_is_told_that_it_was_stopped(folder: Path) -> None:
    with command(folder, "--drain", "1") as running, httpx.Client(base_url=running.address, timeout=PATIENCE) as web:
        whole: list[httpx.Response] = []
        body = {"model": NAME, "prompt": "Once", "max_tokens": 16384}
        asking = threading.Thread(target=lambda: whole.append(web.post("/v1/completions", json=body)))
        asking.start()
        with streaming(web, 16384) as response:
            told = chunks(response)
            next(told)
            wait_for(lambda: metric(httpx.get(running.address + "/metrics").text, "batch") == 2)
            begun = time.monotonic()
            running.signal(signal.SIGINT)
            *_, last = told
        code, log = running.ended(10)
        asking.join(10)
    assert code == 0 and 0.9 < time.monotonic() - begun < 30
    assert "stopped" in last["error"]["message"]
    assert whole[0].status_code == 503 and "stopped" in whole[0].json()["error"]["message"]
    assert "Traceback" not in log and "Cancel" not in log


# ---- where it cannot begin


def refused(*arguments: str) -> str:
    """The one sentence, and that no model was loaded for it."""
    begun = time.monotonic()
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("receptance: ") and result.stderr.count("\n") == 1, result.stderr
    assert time.monotonic() - begun < 20
    return result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_in_use(host: str) -> None:
    try:
        taken = bind(host, 0)
    except InputError:
        pytest.skip("there is no such address here")
    with taken:
        port = taken.getsockname()[1]
        said = refused("nothing.pth", "--host", host, "--port", str(port))
    assert f"cannot listen at {host}, port {port}: address already in use" in said and "--port" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--host", "a..b"], "a..b"),
        (["--host", "203.0.113.1"], "203.0.113.1"),
        (["--keys", "nothing.toml"], "nothing.toml cannot be read"),
        (["--port", "0", "--adapter", "nothing"], "--adapter nothing"),
        (["--port", "0", "--state", "a=nothing"], "--state a=nothing"),
        (["--port", "0"], "nothing.pth"),
    ],
)
def test_options_that_make_no_sense(options: list[str], words: str) -> None:
    assert words in refused("nothing.pth", *options)


@pytest.mark.parametrize("library", ["fastapi", "llguidance"])
def test_a_library_that_is_missing(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from receptance.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve", FILE], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == f"receptance: the server needs {library}; install it with: pip install 'receptance[serve]'\n"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_addresses_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


# ---- crowds


@pytest.fixture(scope="module")
def crowded() -> Iterator[Server]:
    with serving(slots=20, waiting=20) as running:
        yield running


def test_half_of_twenty_streams_leave_and_the_others_do_not_notice(crowded: Server) -> None:
    length, leaving = 1000, set(random.Random(0).sample(range(20), 10))
    before = crowded.metric("sequences_total", reason="cancelled")

    async def one(web: httpx.AsyncClient, number: int, go: asyncio.Event, begun: asyncio.Semaphore) -> str:
        body = {"model": NAME, "prompt": "Once", "stream": True, "max_tokens": length, "seed": number}
        text = ""
        async with web.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
                    if len(text) == 1:
                        begun.release()
                if number in leaving and go.is_set():
                    return text
        return text

    async def all_of_them() -> tuple[list[str], float]:
        go, begun = asyncio.Event(), asyncio.Semaphore(0)
        async with httpx.AsyncClient(base_url=crowded.address, timeout=PATIENCE) as web:
            tasks = [asyncio.create_task(one(web, number, go, begun)) for number in range(20)]
            async with asyncio.timeout(PATIENCE):
                for _ in tasks:
                    await begun.acquire()
            assert metric_now() == 20
            go.set()
            left = time.monotonic()
            while await asyncio.to_thread(metric_now) > 10:
                assert time.monotonic() - left < 5
            seconds = time.monotonic() - left
            return list(await asyncio.gather(*tasks)), seconds

    def metric_now() -> float:
        return crowded.metric("batch")

    texts, seconds = asyncio.run(all_of_them())
    assert seconds < 1.5
    assert crowded.metric("sequences_total", reason="cancelled") == before + 10
    for number in range(20):
        alone = crowded.complete(max_tokens=length if number == 3 else 60, seed=number)["choices"][0]["text"]
        assert len(texts[number]) == length or number in leaving
        assert texts[number][:60] == alone[: min(60, len(texts[number]))]
    crowded.wait_for("batch", 0.0, 5)


def test_more_than_can_be_served_and_wait_are_told_to_come_later(crowded: Server) -> None:
    def ask(max_tokens: int = 16384) -> socket.socket:
        """Without waiting for the answer."""
        body = json.dumps({"model": NAME, "prompt": "Once", "max_tokens": max_tokens}).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection = socket.create_connection(("127.0.0.1", crowded.port))
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return connection

    served = []
    for number in range(20):
        served.append(ask())
        crowded.wait_for("batch", number + 1.0, 5)
    waiting = [ask(1) for _ in range(20)]
    crowded.wait_for("queue", 20.0, 5)
    for _ in range(3):
        response = crowded.web.post("/v1/completions", json={"model": NAME, "prompt": "Once"})
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert "20 requests are waiting already" in response.json()["error"]["message"]
    assert crowded.web.post("/v1/completions", json={"model": NAME, "prompt": "a", "n": 16}).status_code == 429
    assert (crowded.metric("batch"), crowded.metric("queue")) == (20, 20)
    for connection in served:
        connection.close()
    for connection in waiting:
        connection.settimeout(10)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.close()
    crowded.wait_for("batch", 0.0, 5)
    crowded.is_well()


def test_some_of_many_answers_find_no_room_and_none_is_begun(crowded: Server) -> None:
    response = crowded.web.post("/v1/completions", json={"model": NAME, "prompt": ["a"] * 60, "max_tokens": 16384})
    assert response.status_code == 429
    crowded.wait_for("batch", 0.0, 5)
