"""Stored conversations over HTTP, and a look at what a model remembers of one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from receptance.errors import StateError
from receptance.generation import Moment
from receptance.generation.transcript import load_moments
from receptance.interpret import LayerMemory, memory
from receptance.server import Options, Service, Settings, read_keys
from receptance.server.stored import new
from receptance.state import State
from receptance.templates import TEMPLATES, Message

from .serving import NAME, USER, Server, language_model, serving

STATES = "/v1/states"
RULES = {"role": "system", "content": "Answer with one line of Python."}
KEYS = '[ada]\nkey = "sk-ada-0001"\n[bob]\nkey = "sk-bob-0001"'


@pytest.fixture(autouse=True)
def _nothing_is_stored(server: Server) -> None:
    for state in server.json("GET", STATES)["data"]:
        server.json("DELETE", f"{STATES}/{state['id']}")


def save(server: Server, name: str = "rules", **fields: Any) -> Any:
    body = {"name": name, "model": NAME, **(fields or {"messages": [RULES]})}
    return server.json("POST", STATES, json=body)


def said(server: Server, *messages: Any, **fields: Any) -> str:
    answer = server.chat(*messages, temperature=0, max_tokens=12, **fields)
    return answer["choices"][0]["message"]["content"]  # type: ignore[no-any-return]


def test_a_conversation_is_read_once(server: Server) -> None:
    about = save(server)
    text = TEMPLATES["g1"].prompt([Message(**RULES), Message("user", "!")]).partition("!")[0].rstrip()
    assert about["num_tokens"] == len(text) + 1 and about["num_messages"] == 1 and about["num_bytes"] > 1000
    assert about == server.json("GET", f"{STATES}/rules")
    assert server.json("GET", STATES) == {"object": "list", "data": [about]}
    answer = server.chat(USER, temperature=0, max_tokens=12, state="rules")
    assert answer["choices"][0]["message"]["content"] == said(server, RULES, USER)
    assert answer["usage"]["prompt_tokens"] < 30 < server.chat(RULES, USER, max_tokens=1)["usage"]["prompt_tokens"]
    # What goes on from it leaves it as it is.
    assert server.json("GET", f"{STATES}/rules") == about


def test_two_go_on_from_one(server: Server) -> None:
    save(server)
    for name, question in (("ada", "a list"), ("bob", "a set")):
        first = said(server, {"role": "user", "content": question}, state="rules", save_state=name)
        messages = [RULES, {"role": "user", "content": question}]
        assert first == said(server, *messages)
        following = said(server, {"role": "user", "content": "And?"}, state=name)
        more = [*messages, {"role": "assistant", "content": first}, {"role": "user", "content": "And?"}]
        assert following == said(server, *more)
    assert [state["id"] for state in server.json("GET", STATES)["data"]] == ["ada", "bob", "rules"]


def test_a_text_is_read_once(server: Server) -> None:
    about = save(server, "text", prompt="Once upon a time")
    assert (about["num_tokens"], about["num_messages"]) == (17, 0)
    [choice] = server.complete(" there", temperature=0, max_tokens=12, state="text")["choices"]
    assert choice == server.complete("Once upon a time there", temperature=0, max_tokens=12)["choices"][0]


def test_a_stream_is_stored_before_its_end_is_told(server: Server) -> None:
    with server.stream("/v1/chat/completions", max_tokens=5, save_state="talk") as chunks:
        for chunk in chunks:
            if chunk["choices"][0]["finish_reason"]:
                assert server.json("GET", f"{STATES}/talk")["num_messages"] == 2


def test_a_conversation_that_was_left_is_not_stored(server: Server) -> None:
    with server.stream("/v1/chat/completions", max_tokens=16384, save_state="talk") as chunks:
        next(chunks)
    server.wait_for("batch", 0.0, 5)
    assert server.web.get(f"{STATES}/talk").status_code == 404


def test_a_fork_is_a_copy(server: Server) -> None:
    save(server)
    copy = server.json("POST", f"{STATES}/rules/fork", json={"name": "copy"})
    assert copy["id"] == "copy" and copy["num_tokens"] == server.json("GET", f"{STATES}/rules")["num_tokens"]
    server.json("DELETE", f"{STATES}/rules")
    assert said(server, USER, state="copy") == said(server, RULES, USER)
    assert server.web.get(f"{STATES}/rules").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/fork"), ("GET", "/file")])
def test_what_is_not_there(server: Server, method: str, path: str) -> None:
    body = {"name": "b"} if method == "POST" else None
    response = server.web.request(method, f"{STATES}/nothing{path}", json=body)
    assert response.status_code == 404 and response.json()["error"]["code"] == "state_not_found"


def test_a_file_goes_out_and_in(server: Server, tmp_path: Path) -> None:
    save(server)
    response = server.web.get(f"{STATES}/rules/file")
    assert response.headers["content-disposition"] == 'attachment; filename="rules.safetensors"'
    file = tmp_path / "rules.safetensors"
    file.write_bytes(response.content)
    # As `receptance chat` reads it.
    moments, _, about = load_moments(file, language_model().model)
    assert about.template == "g1" and moments[-1].messages == (Message(**RULES),)
    put = server.web.put(f"{STATES}/again/file", params={"model": NAME}, content=response.content)
    assert put.status_code == 200 and put.json()["num_messages"] == 1
    assert said(server, USER, state="again") == said(server, RULES, USER)


def test_a_conversation_of_the_chat_goes_on_here(server: Server, tmp_path: Path) -> None:
    talk = language_model().chat(temperature=0.0, max_tokens=12)
    first = talk.ask("Hello").text
    talk.save(tmp_path / "talk.safetensors")
    data = (tmp_path / "talk.safetensors").read_bytes()
    put = server.web.put(f"{STATES}/talk/file", params={"model": NAME}, content=data)
    assert put.status_code == 200 and put.json()["num_messages"] == 2
    more = {"role": "user", "content": "And?"}
    answer = said(server, more, state="talk")
    assert answer == talk.ask("And?").text == said(server, USER, {"role": "assistant", "content": first}, more)


@pytest.mark.parametrize("fields", [{}, {"prompt": ""}, {"messages": []}, {"messages": [RULES], "prompt": "a"}])
def test_what_is_to_be_read_has_to_be_said(server: Server, fields: dict[str, Any]) -> None:
    response = server.web.post(STATES, json={"name": "a", "model": NAME, **fields})
    assert response.status_code == 400


def test_the_words_of_a_message_may_be_any(server: Server) -> None:
    """Also the letter with which places in a text are found."""
    odd = {"role": "user", "content": "before \ue000 after"}
    about = save(server, "odd", messages=[odd])
    assert about["num_tokens"] > len("before  after") + 8
    answer = {"role": "assistant", "content": "Yes."}
    assert save(server, "odd", messages=[odd, answer])["num_tokens"] > about["num_tokens"]


def test_so_many_may_be_stored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.service.conversations, "_most", 2)
    save(server, "a")
    save(server, "b")
    save(server, "b")
    before = server.metric("tokens_read_total")
    for response in (
        server.web.post(STATES, json={"name": "c", "model": NAME, "prompt": "a text that is not read"}),
        server.web.post(f"{STATES}/a/fork", json={"name": "c"}),
        server.web.put(f"{STATES}/c/file", params={"model": NAME}, content=server.web.get(f"{STATES}/a/file").content),
        server.web.post("/v1/completions", json={"model": NAME, "prompt": "not answered", "save_state": "c"}),
    ):
        assert response.status_code == 400 and "2 conversations are stored already" in response.text
    assert server.metric("tokens_read_total") == before


# ---- with a folder, and with keys


def test_a_restart_keeps_them_for_those_whose_they_are(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(KEYS)
    settings, store = Settings(access=read_keys(tmp_path / "keys.toml")), tmp_path / "store"
    ada, bob = ({"Authorization": f"Bearer sk-{name}-0001"} for name in ("ada", "bob"))
    first = ""
    for turn in range(2):
        with serving(settings, store=store) as server:
            answer = server.chat(USER, headers=ada, temperature=0, max_tokens=12, **({"state": "a"} if turn else {}))
            first = first or answer["choices"][0]["message"]["content"]
            if turn == 0:
                server.chat(USER, headers=ada, temperature=0, max_tokens=12, save_state="a")
            else:
                more = [USER, {"role": "assistant", "content": first}, USER]
                again = server.chat(*more, headers=ada, temperature=0, max_tokens=12)
                assert answer["choices"] == again["choices"]
            assert [one["id"] for one in server.json("GET", STATES, headers=ada)["data"]] == ["a"]
            assert server.json("GET", STATES, headers=bob)["data"] == []
            for method, path in (("GET", "/a"), ("DELETE", "/a"), ("GET", "/a/file")):
                assert server.web.request(method, STATES + path, headers=bob).status_code == 404
            asked = {"model": NAME, "messages": [USER], "state": "a"}
            assert server.web.post("/v1/chat/completions", json=asked, headers=bob).status_code == 404
    # The folder names nobody, and a file that is damaged is told of.
    names = [str(path.relative_to(store)) for path in store.rglob("*")]
    assert not [name for name in names if "ada" in name or "bob" in name]
    [file] = store.glob("conversations/*/a.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with serving(settings, store=store) as server:
        response = server.web.get(f"{STATES}/a", headers=ada)
        assert response.status_code == 400 and "the stored conversation a" in response.json()["error"]["message"]
        assert server.json("GET", STATES, headers=ada)["data"] == []
        assert server.json("DELETE", f"{STATES}/a", headers=ada)["deleted"]


def test_a_store_is_for_one_server_at_a_time(tmp_path: Path) -> None:
    with serving(store=tmp_path), pytest.raises(StateError, match="another process keeps its states"):
        Service(language_model(), NAME, Options(store=tmp_path))


# ---- looking


def look(server: Server, *messages: Any, **fields: Any) -> Any:
    return server.json("POST", "/v1/look", json={"model": NAME, "messages": messages, **fields})


def agrees(layers: list[Any], expected: list[LayerMemory]) -> None:
    for layer, wanted in zip(layers, expected, strict=True):
        assert layer["norm"] == pytest.approx(wanted.norm, rel=1e-3)
        assert layer["change"] == (None if wanted.change is None else pytest.approx(wanted.change, rel=1e-2))
        for name in ("p10", "p50", "p90"):
            assert layer["half_life"][name] == pytest.approx(getattr(wanted.half_life, name), rel=1e-2)


def spoken(*messages: Any) -> str:
    """What a conversation reads as, up to where the user's next words begin."""
    said = [*(Message(**one) for one in messages), Message("user", "!")]
    return TEMPLATES["g1"].prompt(said).rpartition("!")[0].rstrip()


def tokens_of(text: str) -> list[int]:
    return [0, *text.encode()]


@torch.no_grad()
def state_after(tokens: list[int]) -> State:
    state: State = language_model().model(torch.tensor([tokens]))[1]
    return state


def test_a_first_message(server: Server) -> None:
    found, tokens = look(server, USER), tokens_of(spoken(USER))
    assert found["num_tokens"] == len(tokens)
    agrees(found["layers"], memory(language_model().model, tokens))
    assert [layer["change"] for layer in found["layers"]] == [None, None]


def test_the_last_message_is_what_changes(server: Server) -> None:
    answer = {"role": "assistant", "content": "A long enough answer."}
    more = {"role": "user", "content": "And then, what happened after that?"}
    before, whole = tokens_of(spoken(RULES, USER, answer)), tokens_of(spoken(RULES, USER, answer, more))
    assert whole[: len(before)] == before
    found = look(server, RULES, USER, answer, more)
    assert found["num_tokens"] == len(whole)
    agrees(found["layers"], memory(language_model().model, whole[len(before) :], state_after(before)))


def test_short_messages(server: Server) -> None:
    """Shorter than what a state is kept for."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    before, whole = tokens_of("User: a\n\n"), tokens_of(spoken(*messages))
    agrees(look(server, *messages)["layers"], memory(language_model().model, whole[len(before) :], state_after(before)))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_long_message_is_measured_where_it_ends(server: Server, earlier: bool) -> None:
    """Half-lives on its last 128 tokens, the change against what was before all of it."""
    long = {"role": "user", "content": "abcdefgh " * 40}
    messages = [RULES, {"role": "assistant", "content": "Ready."}, long] if earlier else [long]
    tokens = tokens_of(spoken(*messages))
    begin = len(tokens_of(spoken(*messages[:-1]))) if earlier else 0
    since = state_after(tokens[:begin]) if earlier else None
    expected = memory(language_model().model, tokens[-128:], state_after(tokens[:-128]), since)
    found = look(server, *messages)
    if not earlier:
        assert [layer["change"] for layer in found["layers"]] == [None, None]
        expected = [LayerMemory(one.half_life, one.norm, None) for one in expected]
    agrees(found["layers"], expected)


def test_looking_changes_nothing(server: Server) -> None:
    answer = said(server, RULES, USER)
    assert look(server, RULES, USER) == look(server, RULES, USER)
    assert said(server, RULES, USER) == answer


def test_looking_while_others_are_served(server: Server) -> None:
    alone = look(server, RULES, USER)
    found: list[Any] = []
    with server.stream(max_tokens=800, seed=1) as chunks:
        text = next(chunks)["choices"][0]["text"]
        looking = threading.Thread(target=lambda: found.append(look(server, RULES, USER)))
        looking.start()
        text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
        looking.join(20)
    assert found == [alone] and len(text) == 800


def test_a_look_is_as_long_as_a_prompt_may_be(server: Server) -> None:
    long = {"role": "user", "content": "a" * 200_000}
    response = server.web.post("/v1/look", json={"model": NAME, "messages": [long]})
    assert response.status_code == 400 and "131,072" in response.text


def test_a_state_that_makes_no_sense_ends_its_own_request_alone(server: Server, tmp_path: Path) -> None:
    """Numbers that are finite, and no more after the next token."""
    state = State(*(torch.full_like(part, 3e38) for part in state_after([1])))
    one = new("bad", NAME, Moment((Message("user", "a"),), "User: a", "", state, 7), "g1", "off")
    data = server.service.conversations.to_file(one)
    put = server.web.put(f"{STATES}/bad/file", params={"model": NAME}, content=data)
    assert put.status_code == 200
    with server.stream(max_tokens=1000, seed=1) as chunks:
        next(chunks)
        response = server.web.post("/v1/chat/completions", json={"model": NAME, "messages": [USER], "state": "bad"})
        assert response.status_code in (400, 500) and response.json()["error"]["message"]
        assert len("".join(chunk["choices"][0]["text"] for chunk in chunks)) >= 990
