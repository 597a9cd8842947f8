"""What every request goes through: names of the server, pages from elsewhere, headers, bodies, and what is counted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import pytest

from receptance.server import Settings
from receptance.server.guard import Guard

from .serving import NAME, Server, serving

PAGE = "https://page.example"
ASKED = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One that a page elsewhere may ask."""
    with serving(Settings(origins=(PAGE,))) as running:
        yield running


# ---- over HTTP


@pytest.mark.parametrize("path", ["/", "/page.css", "/health", "/nothing", "/v1/models", "/metrics", "/openapi.json"])
def test_every_response_has_the_headers(server: Server, path: str) -> None:
    headers = server.web.get(path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


def test_so_has_what_is_refused_at_the_door(server: Server) -> None:
    for response in (
        server.web.get("/", headers={"host": "evil.example"}),
        server.web.post("/v1/completions", content=b"a"),
        server.web.post("/v1/completions", content=b"a" * 2**21),
    ):
        assert response.status_code in (413, 415, 421) and response.headers["x-content-type-options"] == "nosniff"


def test_the_page_loads_nothing_that_its_policy_forbids(server: Server) -> None:
    page = server.web.get("/").text
    for place in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert not re.match("[a-z]+:|//", place) or place.startswith("data:"), place
        if not place.startswith("data:"):
            assert server.web.get(place).status_code == 200
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page)


def test_pages_from_elsewhere_may_not_ask(server: Server) -> None:
    response = server.web.options("/v1/completions", headers=ASKED)
    assert response.status_code == 405
    asked = server.web.get("/v1/models", headers={"Origin": PAGE})
    for headers in (response.headers, asked.headers):
        assert not [name for name in headers if name.startswith("access-control")]


def test_a_page_that_was_named_may_ask(shared: Server) -> None:
    response = shared.web.options("/v1/completions", headers=ASKED)
    assert response.status_code == 200 and response.headers["access-control-allow-origin"] == PAGE
    body = {"model": NAME, "prompt": "Once", "max_tokens": 1}
    answer = shared.web.post("/v1/completions", json=body, headers={"Origin": PAGE})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in answer.headers
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


def test_another_page_may_not(shared: Server) -> None:
    response = shared.web.options("/v1/completions", headers={**ASKED, "Origin": "https://evil.example"})
    assert response.status_code == 400 and "access-control-allow-origin" not in response.headers
    asked = shared.web.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in asked.headers


def test_what_a_page_can_send_without_asking_is_refused(server: Server) -> None:
    """A form, or a text: a browser asks nobody before it sends one of these."""
    body = b'{"model": "small", "prompt": "Once", "save_state": "a"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""):
        response = server.web.post("/v1/completions", content=body, headers={"content-type": kind, "Origin": PAGE})
        assert response.status_code == 415


def test_responses_are_counted_by_route(server: Server) -> None:
    def count(path: str, status: int) -> float:
        return server.metric("requests_total", path=path, status=str(status))

    wanted = {
        ("/v1/models/{model:path}", 404): ("GET", "/v1/models/nothing"),
        ("/v1/states/{name}", 404): ("GET", "/v1/states/nothing"),
        ("/v1/states/{name}", 400): ("GET", "/v1/states/-"),
        ("/v1/completions", 405): ("GET", "/v1/completions"),
        ("/v1/completions", 400): ("POST", "/v1/completions"),
        ("other", 404): ("GET", "/nothing"),
        ("other", 200): ("GET", "/page.css"),
        ("/health", 200): ("GET", "/health"),
    }
    for (path, status), (method, asked) in wanted.items():
        before = count(path, status)
        assert server.web.request(method, asked).status_code == status
        assert count(path, status) == before + 1, asked


def test_there_are_few_labels_whatever_is_asked(server: Server) -> None:
    for number in range(40):
        server.web.get(f"/{number}")
        server.web.get(f"/v1/models/{number}")
        server.web.get(f"/v1/states/{number}")
        server.web.request("GET", f"/health/{number}", headers={"host": f"{number}.example"})
    paths = set(re.findall(r'receptance_requests_total\{path="([^"]*)"', server.web.get("/metrics").text))
    known = set(server.web.get("/openapi.json").json()["paths"])
    assert {path.replace(":path", "") for path in paths} <= {*known, "other", "/openapi.json"}


# ---- by itself


class Told:
    """An application that notes what it gets, and what comes back."""

    def __init__(self, error: Exception | None = None, **options: Any) -> None:
        self.bodies: list[bytes] = []
        self.sent: list[MutableMapping[str, Any]] = []
        self.reported: list[tuple[str, int]] = []
        self._error = error
        given: dict[str, Any] = {"hosts": ("Here", "[::1]"), "most_bytes": 8, "most_file_bytes": 16, "seconds": 0.2}
        self.guard = Guard(self._app, report=lambda *one: self.reported.append(one), **{**given, **options})

    async def _app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.bodies.append(b"lifespan")
            return
        self.bodies.append((await receive())["body"])
        if self._error:
            raise self._error
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, *parts: bytes | None, method: str = "POST", host: str = "here", **headers: str) -> int | None:
        """The status; None in the place of a part: whoever asks has gone.  After the last part nothing comes."""
        messages: list[dict[str, Any]] = [
            {"type": "http.disconnect"}
            if part is None
            else {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts)
        ]

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.sleep(10)
            return messages.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        names = {"host": host, "content-type": "application/json", **headers}
        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in names.items()]
        asyncio.run(self.guard({"type": "http", "method": method, "path": "/a", "headers": sent}, receive, send))
        started = [message["status"] for message in self.sent if message["type"] == "http.response.start"]
        return started[0] if started else None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("here", 204),
        ("HERE:80", 204),
        ("[::1]:8000", 204),
        ("[::1]", 204),
        ("there", 421),
        ("here.there", 421),
        ("here@there", 421),
        ("::1", 421),
        ("", 421),
    ],
)
def test_names(host: str, status: int) -> None:
    told = Told()
    assert told.ask(b"{}", host=host) == status and bool(told.bodies) == (status == 204)


def test_any_name_where_none_is_given() -> None:
    assert Told(hosts=()).ask(b"{}", host="there") == 204


@pytest.mark.parametrize("parts", [(b"",), (b"{}",), (b"{", b"}"), (b"12345678",), (b"1234", b"", b"5678")])
def test_a_body_is_handed_on_whole(parts: tuple[bytes, ...]) -> None:
    told = Told()
    assert told.ask(*parts) == 204 and told.bodies == [b"".join(parts)] and told.reported == [("other", 204)]


@pytest.mark.parametrize("parts", [(b"123456789",), (b"1234", b"56789"), (b"123456789", b"1", b"1")])
def test_a_body_that_is_too_large(parts: tuple[bytes, ...]) -> None:
    told = Told()
    assert told.ask(*parts) == 413 and not told.bodies and told.reported == [("other", 413)]


@pytest.mark.parametrize("length", ["9", "000009", "9" * 18, "9" * 19, "9" * 5000])
def test_a_body_that_is_said_to_be_too_large(length: str) -> None:
    told = Told()
    assert told.ask(b"{}", content_length=length) == 413 and not told.bodies


@pytest.mark.parametrize("length", ["8", "0000000000000000000000008", "-9", "many", ""])
def test_a_length_that_says_nothing_bad(length: str) -> None:
    assert Told().ask(b"{}", content_length=length) == 204


def test_a_file_may_be_larger_and_of_any_kind() -> None:
    assert Told().ask(b"1" * 16, method="PUT", content_type="text/plain") == 204
    assert Told().ask(b"1" * 17, method="PUT") == 413


def test_a_body_that_does_not_come() -> None:
    told = Told()
    messages = (b"{", b"")
    assert told.ask(*messages, b"}") == 204
    stuck = Told()
    # The first part says that there is more, and nothing follows.
    stuck_parts = [b"{"]

    async def receive() -> dict[str, Any]:
        if not stuck_parts:
            await asyncio.sleep(10)
        return {"type": "http.request", "body": stuck_parts.pop(), "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        stuck.sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"here")]}
    asyncio.run(stuck.guard(scope, receive, send))
    assert stuck.sent[0]["status"] == 408 and (b"connection", b"close") in stuck.sent[0]["headers"]


@pytest.mark.parametrize("parts", [(None,), (b"{", None), (b"{}", None, b"")])
def test_who_has_gone_is_not_answered(parts: tuple[bytes | None, ...]) -> None:
    told = Told()
    assert told.ask(*parts) is None and not told.bodies and not told.reported


def test_a_fault_is_counted_and_passed_on() -> None:
    told = Told(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        told.ask(b"{}")
    assert told.reported == [("other", 500)]


def test_what_is_no_request_is_handed_on() -> None:
    told = Told()
    asyncio.run(told.guard({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert told.bodies == [b"lifespan"]


def test_a_fault_within_is_told_in_the_same_shape(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(owner: str) -> None:
        raise ZeroDivisionError("secret")

    with httpx.Client(base_url=server.address) as web:
        before = server.metric("requests_total", path="/v1/states", status="500")
        monkeypatch.setattr(server.service.conversations, "all", broken)
        response = web.get("/v1/states")
        monkeypatch.undo()
    assert response.status_code == 500 and "secret" not in response.text
    assert response.json()["error"]["type"] == "server_error"
    assert server.metric("requests_total", path="/v1/states", status="500") == before + 1
