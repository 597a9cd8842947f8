"""Keys and what each may do: out of a file, over HTTP, and by the clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from receptance.errors import InputError
from receptance.server import Settings, read_keys
from receptance.server import access as access_module
from receptance.server.access import Access, Allowance, Caller, DeniedError, TooManyError

from .serving import NAME, USER, Server, serving, wait_for

KEYS = f"""
[ada]
key = "sk-ada-0001"

[bob]
sha256 = "{hashlib.sha256(b"sk-bob-0001").hexdigest()}"
requests_per_minute = 3

[eve]
key = "sk-eve-0001"
requests_at_once = 1

[sam]
key = "sk-sam-0001"
requests_per_minute = 2

[joe]
key = "sk-joé-0001"
tokens_per_minute = 20
"""


def keys(folder: Path, text: str) -> Access:
    path = folder / "keys.toml"
    path.write_text(text, "utf-8")
    return read_keys(path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Settings(access=keys(tmp_path_factory.mktemp("keys"), KEYS)), slots=4) as running:
        yield running


def ask(server: Server, key: str, **fields: object) -> httpx.Response:
    body = {"model": NAME, "messages": [USER], "max_tokens": 2, **fields}
    return server.web.post("/v1/chat/completions", json=body, headers=bearer(key))


# ---- the file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("[ada", "is no TOML"),
        ('ada = "sk-secret-1"', "ada is no entry"),
        ("[ada]", r"\[ada\]: give either key or sha256"),
        ('[ada]\nkey = "sk-secret-1"\nsha256 = "' + "a" * 64 + '"', "give either key or sha256"),
        ('[ada]\nkey = "short"', "at least 8 characters"),
        ("[ada]\nkey = 1234567890", "a text"),
        ('[ada]\nsha256 = "sk-secret-1"', "64 digits"),
        ('[ada]\nkey = "sk-secret-1"\ncolour = 1', "no field colour"),
        ('[ada]\nkey = "sk-secret-1"\nrequests_per_minute = 0', "requests_per_minute"),
        ('[ada]\nkey = "sk-secret-1"\ntokens_per_minute = "many"', "tokens_per_minute"),
        ('[ada]\nkey = "sk-secret-1"\n[bob]\nkey = "sk-secret-1"', "the same key"),
        (f'[ada]\nkey = "sk-secret-1"\n[bob]\nsha256 = "{hashlib.sha256(b"sk-secret-1").hexdigest()}"', "the same key"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence_without_keys(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        keys(tmp_path, text)
    said = str(raised.value)
    assert "keys.toml" in said and "\n" not in said and "secret" not in said and "1234567890" not in said


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: no such file"):
        read_keys(tmp_path / "nothing.toml")
    (tmp_path / "keys.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is no TOML"):
        read_keys(tmp_path / "keys.toml")


# ---- who asks


def test_everybody_may_where_there_are_no_keys() -> None:
    access = Access()
    assert not access.has_keys and access.caller(None).name == access.caller("Bearer anything").name == ""


def test_a_key_by_itself_and_by_its_hash(tmp_path: Path) -> None:
    access = keys(tmp_path, KEYS)
    assert access.has_keys
    assert [access.caller(f"Bearer sk-{name}-0001").name for name in ("ada", "bob")] == ["ada", "bob"]
    assert access.caller("bearer  sk-ada-0001 ").name == "ada"
    # As a header brings it: its bytes as Latin-1.
    assert access.caller("Bearer " + "sk-joé-0001".encode().decode("latin-1")).name == "joe"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "sk-ada-0001", "Basic sk-ada-0001", "Bearer sk-ada-0002", "Bearer \u2603"],
)
def test_no_key_and_a_wrong_one(tmp_path: Path, header: str | None) -> None:
    with pytest.raises(DeniedError):
        keys(tmp_path, KEYS).caller(header)


def test_the_hash_of_a_key_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(DeniedError):
        keys(tmp_path, KEYS).caller(f"Bearer {hashlib.sha256(b'sk-bob-0001').hexdigest()}")


PATHS = [
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{NAME}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/states"),
    ("POST", "/v1/states"),
    ("GET", "/v1/states/a"),
    ("DELETE", "/v1/states/a"),
    ("POST", "/v1/states/a/fork"),
    ("GET", "/v1/states/a/file"),
    ("PUT", "/v1/states/a/file"),
    ("POST", "/v1/look"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize("key", [None, "sk-ada-0002"])
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_path_wants_a_key(guarded: Server, method: str, path: str, key: str | None) -> None:
    response = guarded.web.request(method, path, headers=bearer(key) if key else {})
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


def test_these_are_all_paths_that_there_are(guarded: Server) -> None:
    paths = guarded.web.get("/openapi.json").json()["paths"]
    found = {
        (method.upper(), path.replace("{name}", "a").replace("{model}", NAME))
        for path, methods in paths.items()
        for method in methods
    }
    assert found - {("GET", "/health"), ("GET", "/ready")} == set(PATHS)


def test_health_and_the_page_want_none(guarded: Server) -> None:
    assert [guarded.web.get(path).status_code for path in ("/health", "/ready", "/")] == [200, 200, 200]


def test_a_key_opens(guarded: Server) -> None:
    assert ask(guarded, "sk-ada-0001").status_code == 200
    assert guarded.web.get("/metrics", headers=bearer("sk-ada-0001")).status_code == 200


# ---- how much


def test_so_many_requests_a_minute(guarded: Server) -> None:
    responses = [ask(guarded, "sk-bob-0001") for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 60
    error = responses[-1].json()["error"]
    assert error["code"] == "rate_limit_exceeded" and "3 times a minute" in error["message"]
    # Looking costs nothing, and another's key is another's.
    assert guarded.web.get("/v1/models", headers=bearer("sk-bob-0001")).status_code == 200
    assert ask(guarded, "sk-ada-0001").status_code == 200


def test_so_many_requests_at_once(guarded: Server) -> None:
    body = {"model": NAME, "prompt": "Once", "max_tokens": 16384, "stream": True}
    with guarded.web.stream("POST", "/v1/completions", json=body, headers=bearer("sk-eve-0001")) as response:
        lines = response.iter_lines()
        next(lines)
        refused = ask(guarded, "sk-eve-0001")
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert "1 requests of this key" in refused.json()["error"]["message"]
    # Also where the answer was never heard to its end.
    wait_for(lambda: ask(guarded, "sk-eve-0001").status_code == 200, 5)
    assert ask(guarded, "sk-eve-0001", max_tokens=-1).status_code == 400
    assert ask(guarded, "sk-eve-0001", think="deeply").status_code == 400
    assert ask(guarded, "sk-eve-0001").status_code == 200


def test_what_is_refused_with_a_look_at_it_counts(guarded: Server) -> None:
    assert [ask(guarded, "sk-sam-0001", think="deeply").status_code for _ in range(3)] == [400, 400, 429]


def test_so_many_tokens_a_minute(guarded: Server) -> None:
    key = "sk-joé-0001".encode().decode("latin-1")
    headers = {"authorization": f"Bearer {key}".encode("latin-1")}
    body = {"model": NAME, "prompt": "Once", "max_tokens": 16}
    for status in (200, 429):
        response = guarded.web.post("/v1/completions", json=body, headers=httpx.Headers(headers))
        assert response.status_code == status, response.text
    assert "20 tokens a minute" in response.json()["error"]["message"]


def test_tokens_of_a_stream_that_was_left_count_too(tmp_path: Path) -> None:
    text = '[ada]\nkey = "sk-ada-0001"\ntokens_per_minute = 40'
    with serving(Settings(access=keys(tmp_path, text))) as server:
        body = {"model": NAME, "prompt": "Once", "max_tokens": 16384, "stream": True}
        with server.web.stream("POST", "/v1/completions", json=body, headers=bearer("sk-ada-0001")) as response:
            lines = response.iter_lines()
            for _ in range(200):
                next(lines)
        wait_for(lambda: ask(server, "sk-ada-0001").status_code == 429, 5)


def test_the_minute_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now)
    caller = Caller("ada", Allowance(requests_per_minute=2, tokens_per_minute=100))

    def try_it() -> float:
        """0, or the seconds to wait."""
        try:
            with caller.asking():
                return 0.0
        except TooManyError as error:
            return error.retry_after

    assert try_it() == 0.0
    now = 1020.0
    assert try_it() == 0.0
    now = 1030.0
    assert try_it() == 30.0
    now = 1060.0
    assert try_it() == 0.0
    assert try_it() == 20.0
    caller.used(150)
    now = 1085.0
    assert try_it() == 35.0
    now = 1120.0
    assert try_it() == 0.0 and caller.num_running == 0
