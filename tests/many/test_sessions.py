"""The session of a request: the same for all requests of a conversation, another for every other one."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("ray.serve")

from receptance.many.sessions import BEGINNING, session_key

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}
REPLY = {"role": "assistant", "content": "Hi."}
MORE = {"role": "user", "content": "More?"}


def key(headers: dict[bytes, bytes] | None = None, **body: Any) -> str:
    return session_key(headers or {}, json.dumps({"model": "m", **body}).encode())


def test_a_conversation_that_grows_keeps_its_key() -> None:
    first = key(messages=[SYSTEM, HELLO], temperature=0.5)
    assert first and first == key(messages=[SYSTEM, HELLO, REPLY, MORE], stream=True)
    others = [
        key(messages=[SYSTEM, MORE]),
        key(messages=[HELLO]),
        session_key({}, json.dumps({"model": "other", "messages": [SYSTEM, HELLO]}).encode()),
    ]
    assert len({first, *others}) == 4
    # Nobody has spoken yet; the instructions are all there is.
    assert key(messages=[SYSTEM]) not in ("", first)


def test_a_text_that_grows_keeps_its_key_once_it_is_long() -> None:
    text = "x" * BEGINNING
    assert key(prompt=text) == key(prompt=text + "y") != key(prompt="y" + text)
    assert key(prompt=[1, 2, 3]) not in ("", key(prompt=[1, 2]))


def test_what_a_client_says_goes_before_what_is_said() -> None:
    messages = [SYSTEM, HELLO]
    by_field = [key(messages=messages, **{field: "ada"}) for field in ("prompt_cache_key", "user", "state")]
    by_header = key({b"x-session-id": b"ada"}, messages=messages)
    assert len({key(messages=messages), by_header, *by_field}) == 5
    assert key(messages=[MORE], user="ada", state="s") == by_field[1]
    assert key(messages=[MORE], prompt_cache_key="ada", user="bob") == by_field[0]
    assert session_key({b"x-session-id": b"ada"}, b"") == by_header


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"messages": 3}', b'{"messages": []}', b"\xff", b"[" * 10**5, b'{"user": 1}'],
)
def test_where_nothing_tells_there_is_no_key(body: bytes) -> None:
    assert session_key({}, body) == ""


def test_messages_of_any_shape_have_a_key() -> None:
    assert session_key({}, b'{"messages": [1, null, {"role": ["user"]}, {"content": 2}]}')


def test_no_word_stands_in_a_key() -> None:
    assert len(key(user="ada" * 1000)) == len(key(messages=[HELLO])) == 32
    assert int(key(user="ada"), 16)
