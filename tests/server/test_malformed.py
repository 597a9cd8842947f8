"""Requests that make no sense: each is refused in OpenAI's shape with one sentence, and the server serves on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .serving import NAME, USER, Server, wait_for

CHAT, TEXT, STATES, LOOK = "/v1/chat/completions", "/v1/completions", "/v1/states", "/v1/look"
JSON = {"content-type": "application/json"}
TOOL = {"type": "function", "function": {"name": "add"}}


@pytest.fixture(autouse=True)
def _serves_on(server: Server) -> Iterator[None]:
    """Whatever was sent, nothing is left of it, nothing went wrong within, and the next request is answered."""
    before = server.metric("requests_total", status="500")
    yield
    server.wait_for("batch", 0.0, 5)
    server.is_well()
    assert server.metric("requests_total", status="500") == before


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """What is told of it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    [(name, error)] = response.json().items()
    assert name == "error" and error.keys() == {"message", "type", "param", "code"}
    message = error["message"]
    assert message and len(message) < 500 and "\n" not in message and "Traceback" not in message
    assert response.headers["x-content-type-options"] == "nosniff"
    return error  # type: ignore[no-any-return]


def text(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "prompt": "Once", "max_tokens": 2, **fields}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [USER], "max_tokens": 2, **fields}


# ---- bodies that are no JSON

BODIES = {
    "empty": (b"", "no body"),
    "half": (b'{"model": "small", "prompt": "On', "not JSON"),
    "two": (b'{"model": "small"} {}', "not JSON"),
    "no text": (b"\xff\xfe\x00", "UTF-8"),
    "half a character": (b'{"model": "small", "prompt": "\xc3"}', "UTF-8"),
    "zero bytes": (b"\x00" * 100, "JSON|UTF-8"),
    "deep lists": (b"[" * 200_000, "nested"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "a number of 5,000 digits": (b'{"model": "small", "prompt": "a", "seed": ' + b"9" * 5000 + b"}", "JSON"),
    "a list": (b"[]", "dictionary"),
    "a text": (b'"Once"', "dictionary"),
    "a number": (b"1", "dictionary"),
    "null": (b"null", "dictionary"),
    "true": (b"true", "dictionary"),
}


@pytest.mark.parametrize("path", [CHAT, TEXT, STATES, LOOK])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_object(server: Server, name: str, path: str) -> None:
    content, _ = BODIES[name]
    refused(server.web.post(path, content=content, headers=JSON))


@pytest.mark.parametrize("name", BODIES)
def test_it_says_what_is_wrong_with_a_body(server: Server, name: str) -> None:
    content, words = BODIES[name]
    message = refused(server.web.post(TEXT, content=content, headers=JSON))["message"]
    assert any(word in message for word in words.split("|")), message


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "application/a"]
)
def test_a_body_of_another_kind(server: Server, kind: str | None) -> None:
    content = json.dumps(text())
    headers = {} if kind is None else {"content-type": kind}
    message = refused(server.web.post(TEXT, content=content, headers=headers), 415)["message"]
    assert "Content-Type: application/json" in message


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/problem+json"])
def test_json_by_other_names_is_taken(server: Server, kind: str) -> None:
    response = server.web.post(TEXT, content=json.dumps(text()), headers={"content-type": kind})
    assert response.status_code == 200


# ---- fields

LONG = "a" * 300
BAD_FIELDS: dict[str, tuple[dict[str, Any], str | None]] = {
    "no model": ({"prompt": "a"}, "model"),
    "no prompt": ({"model": NAME}, "prompt"),
    "unknown field": (text(colour="red"), "colour"),
    "a field with an odd name": (text(**{"a\x1b[2Jb": 1}), None),
    "a name that is too long": (text(**{LONG * 100: 1}), None),
    "model of another kind": (text(model=3), "model"),
    "model too long": (text(model="a" * 10_000), "model"),
    "stream as a text": (text(stream="true"), "stream"),
    "stream as a number": (text(stream=1), "stream"),
    "tokens as a text": (text(max_tokens="5"), "max_tokens"),
    "no tokens": (text(max_tokens=0), "max_tokens"),
    "tokens below nothing": (text(max_tokens=-1), "max_tokens"),
    "too many tokens": (text(max_tokens=10**9), "max_tokens"),
    "more tokens than are given": (text(max_tokens=20_000), None),
    "half a token": (text(max_tokens=1.5), "max_tokens"),
    "a number too large for any": (text(max_tokens=10**40), "max_tokens"),
    "negative temperature": (text(temperature=-0.1), "temperature"),
    "hot": (text(temperature=1e300), "temperature"),
    "negative seed": (text(seed=-1), "seed"),
    "large seed": (text(seed=2**64), "seed"),
    "too many answers": (text(n=1000), "n"),
    "prompts of several kinds": (text(prompt=["a", 1]), "prompt"),
    "prompts of nothing": (text(prompt=[]), "prompt"),
    "prompts of lists of texts": (text(prompt=[["a"]]), None),
    "prompt as an object": (text(prompt={"a": 1}), "prompt"),
    "negative token": (text(prompt=[-1]), None),
    "token beyond the vocabulary": (text(prompt=[256]), None),
    "token beyond all": (text(prompt=[2**70]), None),
    "stop that is empty": (text(stop=""), None),
    "stops without end": (text(stop=["a"] * 1000), "stop"),
    "stop that is no text": (text(stop=5), "stop"),
    "bias of a text": (text(logit_bias={"a": 1}), None),
    "bias that is too strong": (text(logit_bias={"1": 1e9}), None),
    "bias beyond the vocabulary": (text(logit_bias={"9999999": 1}), None),
    "bias as a list": (text(logit_bias=[1]), "logit_bias"),
    "logprobs without end": (text(logprobs=10**6), "logprobs"),
    "no time": (text(timeout=0), "timeout"),
    "an unknown order": (text(order="random"), "order"),
    "a state of no name": (text(state=""), "state"),
    "a state outside": (text(state="../../etc/passwd"), "state"),
    "a state with a line break": (text(state="a\n"), "state"),
    "a state that is not there": (text(state="nothing"), "state"),
    "to be saved outside": (text(save_state="/tmp/a"), "save_state"),
    "usage without a stream": (text(stream_options={"include_usage": True}), None),
    "no regular expression": (text(regex="(" * 1000), None),
    "no grammar": (text(grammar="start: wizard"), None),
    "two forms": (text(grammar="a", regex="b"), None),
    "a suffix": (text(suffix="b"), "suffix"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_that_makes_no_sense(server: Server, name: str) -> None:
    body, param = BAD_FIELDS[name]
    error = refused(server.web.post(TEXT, json=body), 404 if name == "a state that is not there" else 400)
    assert param is None or error["param"] == param, error
    assert "\x1b" not in error["message"]


BAD_CHATS: dict[str, dict[str, Any]] = {
    "no messages": chat(messages=[]),
    "messages as a text": chat(messages="Hello"),
    "a message as a text": chat(messages=["Hello"]),
    "no role": chat(messages=[{"content": "Hello"}]),
    "an unknown role": chat(messages=[{"role": "wizard", "content": "Hello"}]),
    "a role that is none": chat(messages=[{"role": None, "content": "Hello"}]),
    "no content": chat(messages=[{"role": "user"}]),
    "content null": chat(messages=[{"role": "user", "content": None}]),
    "content of numbers": chat(messages=[{"role": "user", "content": [1, 2]}]),
    "a picture": chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]),
    "an unknown field of a message": chat(messages=[{**USER, "colour": "red"}]),
    "a call without arguments": chat(
        messages=[{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]}]
    ),
    "a call with arguments that are no JSON": chat(
        messages=[
            USER,
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}],
            },
            {"role": "tool", "tool_call_id": "a", "content": "1"},
        ]
    ),
    "a tool without a name": chat(tools=[{"type": "function", "function": {}}]),
    "a tool with a name that is none": chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
    "two tools of one name": chat(tools=[TOOL, TOOL]),
    "a choice that is no tool": chat(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "sub"}}
    ),
    "a choice without tools": chat(tool_choice="required"),
    "an unknown think mode": chat(think="deeply"),
    "an unknown effort": chat(reasoning_effort="heroic"),
    "a schema that is none": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "wizard"}}}
    ),
    "a schema without end": chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": json.loads('{"a":' * 200 + "{}" + "}" * 200)},
        }
    ),
    "an unknown form": chat(response_format={"type": "xml"}),
    "logprobs of likeliest ones alone": chat(top_logprobs=3),
    "state that has read a text": chat(state="a.text"),
}


@pytest.mark.parametrize("name", BAD_CHATS)
def test_a_conversation_that_makes_no_sense(server: Server, name: str) -> None:
    if name == "state that has read a text":
        server.json("POST", STATES, json={"name": "a.text", "model": NAME, "prompt": "Once"})
    refused(server.web.post(CHAT, json=BAD_CHATS[name]))


@pytest.mark.parametrize(
    "content",
    [
        b'{"model": "small", "prompt": "\\ud800"}',
        b'{"model": "small", "prompt": ["\\udfff"]}',
        b'{"model": "\\ud800", "prompt": "a"}',
        b'{"model": "small", "prompt": "a", "stop": "\\ud800"}',
        b'{"model": "small", "prompt": "a", "\\ud800": 1}',
        b'{"model": "small", "prompt": "a", "user": "\\ud800"}',
        b'{"model": "small", "prompt": "a", "regex": "\\ud800"}',
        b'{"model": "small", "prompt": "a", "temperature": NaN}',
        b'{"model": "small", "prompt": "a", "temperature": Infinity}',
        b'{"model": "small", "prompt": "a", "temperature": 1e999}',
        b'{"model": "small", "prompt": "a", "top_p": -Infinity}',
        b'{"model": "small", "prompt": "a", "logit_bias": {"1": NaN}}',
        b'{"model": "small", "prompt": "a", "timeout": NaN}',
        b'{"model": "small", "prompt": "a", "max_tokens": NaN}',
    ],
)
def test_texts_and_numbers_that_json_should_not_have(server: Server, content: bytes) -> None:
    refused(server.web.post(TEXT, content=content, headers=JSON))


@pytest.mark.parametrize(
    "content",
    [
        b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"\\ud800": 1}}}',
        b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": NaN}}}',
        b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"pattern": "((((("}}}',
        b'{"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "http://127.0.0.1:1/a"}}}',
    ],
)
def test_schemas_that_are_none(server: Server, content: bytes) -> None:
    body = b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "response_format": ' + content + b"}"
    refused(server.web.post(CHAT, content=body, headers=JSON))


def test_a_prompt_that_is_too_long(server: Server) -> None:
    message = refused(server.web.post(TEXT, json=text(prompt="a" * 200_000)))["message"]
    assert "131,072" in message
    for body in ({"prompt": "a" * 200_000}, {"messages": [{"role": "user", "content": "a" * 200_000}]}):
        message = refused(server.web.post(STATES, json={"name": "long", "model": NAME, **body}))["message"]
        assert "131,072" in message


def test_more_answers_than_one_request_may_have(server: Server) -> None:
    message = refused(server.web.post(TEXT, json=text(prompt=["a"] * 60, n=16)))["message"]
    assert "60 prompts with n = 16" in message


# ---- paths, methods, headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1", "/v1/chat", "/v1/embeddings", "/V1/models", "//v1/models", "/health/", "/%00"]
)
def test_paths_that_there_are_not(server: Server, method: str, path: str) -> None:
    error = refused(server.web.request(method, server.address + path), 404)
    assert "openapi.json" in error["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CHAT),
        ("PUT", TEXT),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/models/small"),
        ("POST", "/health"),
        ("PATCH", "/v1/states/a"),
        ("PUT", "/v1/states/a"),
        ("GET", "/v1/states/a/fork"),
        ("TRACE", CHAT),
        ("OPTIONS", CHAT),
        ("WIZARD", CHAT),
    ],
)
def test_methods_that_a_path_has_not(server: Server, method: str, path: str) -> None:
    if method == "WIZARD":
        assert raw(server, f"WIZARD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()) in (400, 405)
        return
    assert method in refused(server.web.request(method, path), 405)["message"]


@pytest.mark.parametrize("name", ["a b", "-a", ".a", "a" * 65, "ä", "%0a", "a%0A", "a%00", "%ff", "a@b", "~", "a;b"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT"])
def test_names_of_states_that_cannot_be(server: Server, method: str, name: str) -> None:
    path = f"/v1/states/{name}"
    if method == "POST":
        response = server.web.post(path + "/fork", json={"name": "b"})
    elif method == "PUT":
        response = server.web.put(path + "/file", params={"model": NAME}, content=b"a")
    else:
        response = server.web.request(method, path)
    assert refused(response)["param"] == "name"


@pytest.mark.parametrize("path", ["..", "../..", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..\\..\\a"])
@pytest.mark.parametrize("root", ["/", "/v1/states/", "/v1/states/a/"])
def test_no_path_leads_outside(server: Server, root: str, path: str) -> None:
    request = f"GET {root}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = raw_answer(server, request.encode())
    assert answer[9:12] in (b"200", b"307", b"400", b"404", b"405"), answer
    assert b"root:" not in answer and (b" 200 " not in answer[:20] or b"<!doctype html>" in answer)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost", "", "127.0.0.2", "127.0.0.1:a"]
)
def test_another_hosts_name(server: Server, host: str) -> None:
    error = refused(server.web.get("/v1/models", headers={"host": host}), 421)
    assert "--known-as" in error["message"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "127.0.0.1:"])
def test_the_port_is_no_part_of_the_name(server: Server, host: str) -> None:
    assert server.web.get("/v1/models", headers={"host": host}).status_code == 200


def raw_answer(server: Server, request: bytes, seconds: float = 10.0) -> bytes:
    """What comes back until the server closes the connection, or for so long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), seconds) as connection:
        connection.sendall(request)
        try:
            while part := connection.recv(2**16):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
    return answer


def raw(server: Server, request: bytes) -> int:
    """The status."""
    request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    answer = raw_answer(server, request)
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
BAD_REQUESTS = {
    "no HTTP": b"Hello\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200 + b"\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "a long header": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 10**6 + b"\r\n\r\n",
    "a long path": b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a header with a zero": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n",
    "a length that is none": HEAD + b"Content-Length: many\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "a length of many digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nwizard\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_are_no_http(server: Server, name: str) -> None:
    answer = raw_answer(server, BAD_REQUESTS[name].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), 3.0)
    # Some are not worth an answer.
    if answer or name in ("no host", "two hosts"):
        assert answer.startswith(b"HTTP/1.1 4"), answer[:200]


# ---- sizes and times


@pytest.mark.parametrize("path", [CHAT, TEXT, STATES, LOOK])
def test_a_body_that_is_too_large(server: Server, path: str) -> None:
    message = refused(server.web.post(path, json={"model": "a" * 2**21}), 413)["message"]
    assert "1,048,576 bytes" in message


def test_a_body_that_does_not_say_how_large_it_is(server: Server) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"model": "'
        for _ in range(64):
            yield b"a" * 2**15
        yield b'"}'

    refused(server.web.post(TEXT, content=parts(), headers=JSON), 413)


def test_a_body_that_grows_for_ever(server: Server) -> None:
    """It is read for a while, so that the answer is seen, and then no more."""
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000000000\r\n\r\n")
        try:
            while sent < 2**30:
                sent += connection.send(b"a" * 2**16)
        except OSError:
            pass
    assert sent < 2**26


def test_a_body_that_does_not_arrive(server: Server) -> None:
    begun = time.monotonic()
    answer = raw_answer(server, HEAD + b"Content-Length: 100\r\n\r\n" + b'{"model"')
    assert answer.startswith(b"HTTP/1.1 408") and b"within 1 seconds" in answer
    assert 0.9 < time.monotonic() - begun < 5


def test_a_body_that_arrives_slowly(server: Server) -> None:
    """It is the whole body that has so much time, not each part."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        try:
            for _ in range(40):
                connection.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            pass
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("rest", [b"", b'{"model": "small", "prompt": "Once", "max_tokens": 2}'])
def test_who_leaves_in_the_middle_of_a_body_asked_for_nothing(server: Server, rest: bytes) -> None:
    """Even where what has come would be a request by itself."""
    before = server.metric("sequences_total")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + rest)
        time.sleep(0.05)
    time.sleep(0.2)
    assert server.metric("sequences_total") == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_who_leaves_without_an_answer_frees_the_place(server: Server, stream: bool, wait: float) -> None:
    before = server.metric("sequences_total", reason="cancelled")
    body = json.dumps(text(max_tokens=16384, stream=stream)).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(wait)
    if wait:
        wait_for(lambda: server.metric("sequences_total", reason="cancelled") == before + 1, 5)
    server.wait_for("batch", 0.0, 5)


def test_who_leaves_a_stream_frees_the_place(server: Server) -> None:
    before = server.metric("sequences_total", reason="cancelled")
    with server.stream(max_tokens=16384) as chunks:
        next(chunks)
        assert server.metric("batch") == 1.0
    wait_for(lambda: server.metric("sequences_total", reason="cancelled") == before + 1, 5)
    assert server.metric("batch") == 0.0


def test_who_does_not_read_holds_nobody_up(server: Server) -> None:
    body = json.dumps(text(max_tokens=16384, stream=True)).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: server.metric("batch") == 1.0, 5)
        begun = time.monotonic()
        for _ in range(5):
            server.is_well()
        assert time.monotonic() - begun < 5
    server.wait_for("batch", 0.0, 5)


@pytest.mark.parametrize("data", [b"", b"a", b"\0" * 1000, b"\x10\0\0\0\0\0\0\0" + b"{}" * 8, b"\xff" * 64])
def test_files_that_are_no_states(server: Server, data: bytes) -> None:
    message = refused(server.web.put("/v1/states/a/file", params={"model": NAME}, content=data))["message"]
    assert "/tmp" not in message and "the file" in message


def test_a_file_of_no_model(server: Server) -> None:
    assert refused(server.web.put("/v1/states/a/file", content=b"a"))["param"] == "model"
    assert refused(server.web.put("/v1/states/a/file", params={"model": "b"}, content=b"a"), 404)["param"] == "model"
