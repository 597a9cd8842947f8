"""Two replicas as one server: conversations are remembered by one, stored for all, and outlive a replica's end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from threading import Thread
from typing import Any

import httpx
import pytest
from openai import InternalServerError, OpenAI

from receptance.server import Options, Recipe
from receptance.server.launch import bind

SYSTEM = {"role": "system", "content": "Be brief."}
# The end of the text is never the likeliest token.
ENDLESS: dict[str, Any] = {"temperature": 0, "logit_bias": {"0": -100}}
# So many that each of two replicas gets some.
SESSIONS = [f"session {number}" for number in range(20)]


@pytest.fixture(scope="module")
def address(cluster: None, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    serve = pytest.importorskip("ray.serve")
    from receptance.many import Replicas, application

    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
    kept = replace(recipe, options=Options(store=tmp_path_factory.mktemp("store")))
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(kept, replicas=Replicas(2, 2), resources={"num_cpus": 1}), name="receptance")
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


def asked(client: OpenAI, *messages: dict[str, str], session: str | None = None, **settings: Any) -> tuple[str, Any]:
    """The replica, and what it answers."""
    headers = {"x-session-id": session} if session else {}
    said: Any = [SYSTEM, *messages]
    given = {"max_tokens": 6, "temperature": 0, **settings}
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=said, extra_headers=headers, max_tokens=given.pop("max_tokens"), extra_body=given
    )
    return raw.headers["x-replica"], raw.parse()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture(scope="module")
def homes(client: OpenAI) -> dict[str, str]:
    """A session on each of the two replicas."""
    found = {asked(client, user("Hello"), session=session)[0]: session for session in SESSIONS}
    assert len(found) == 2
    return found


def test_a_conversation_stays_with_the_replica_that_remembers_it(client: OpenAI, address: str) -> None:
    replicas = set()
    for topic in SESSIONS:
        home, first = asked(client, user(topic))
        turns = [user(topic), {"role": "assistant", "content": first.choices[0].message.content}, user("More?")]
        again, second = asked(client, *turns)
        assert again == home
        assert second.usage.prompt_tokens_details.cached_tokens > len(topic)
        replicas.add(home)
    assert len(replicas) == 2
    page = httpx.get(f"{address}/metrics").text
    assert all(f'receptance_cache_hits_total{{model="",replica="{replica}"}}' in page for replica in replicas)


def test_answers_are_the_models(client: OpenAI, recipe: Recipe) -> None:
    lm = recipe.service().lm
    for prompt in ("Once upon a time", "x"):
        answer = client.completions.create(model="m", prompt=prompt, max_tokens=8, temperature=0.8, seed=5)
        alone = lm.generate(prompt, 8, temperature=0.8, seed=5)
        assert answer.choices[0].text == alone.text


def test_a_stream_streams(client: OpenAI) -> None:
    _, whole = asked(client, user("Tell me"), max_tokens=400, **ENDLESS)
    clock = time.perf_counter()
    pieces, times = [], []
    for chunk in client.chat.completions.create(
        model="m", messages=[SYSTEM, user("Tell me")], max_tokens=400, stream=True, **ENDLESS
    ):
        pieces.append(chunk.choices[0].delta.content or "")
        times.append(time.perf_counter() - clock)
    assert "".join(pieces) == whole.choices[0].message.content
    # Nobody has waited for the end of it.
    assert times[1] < times[-1] / 2


def test_stored_conversations_are_everybodys(client: OpenAI, homes: dict[str, str]) -> None:
    here, there = homes.values()
    asked(client, user("Hello"), session=here, save_state="kept")
    _, on_the_same = asked(client, user("And?"), session=here, state="kept")
    other, on_the_other = asked(client, user("And?"), session=there, state="kept", save_state="kept")
    assert homes[other] == there
    assert on_the_same.choices[0].message.content == on_the_other.choices[0].message.content
    # The first one had it in memory, and there is a newer one now.
    asked(client, user("And?"), session=here, state="kept", save_state="newer")
    listed = client.get("/states", cast_to=httpx.Response).json()["data"]
    # Each request has brought two, and led to an answer.
    assert {state["id"]: state["num_messages"] for state in listed} == {"kept": 6, "newer": 9}


def test_a_replica_that_ends_takes_no_later_request_with_it(
    client: OpenAI, address: str, homes: dict[str, str]
) -> None:
    ended, session = next(iter(homes.items()))
    waiting = Thread(target=lambda: told.append(refusal(client, session)))
    told: list[InternalServerError] = []
    waiting.start()
    body = {"model": "m", "messages": [user("Tell me")], "stream": True, "max_tokens": 9000, **ENDLESS}
    with httpx.stream(
        "POST", f"{address}/v1/chat/completions", json=body, headers={"x-session-id": session}, timeout=60
    ) as running:
        lines = (line for line in running.iter_lines() if line)
        assert running.headers["x-replica"] == ended and next(lines).startswith("data: ")
        time.sleep(0.5)
        kill(ended)
        *_, last, done = lines
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "unavailable" and error["message"].endswith("ask again") and done == "data: [DONE]"
    waiting.join()
    assert told[0].status_code == 503 and told[0].body == error and int(told[0].response.headers["retry-after"]) > 0
    # Its own sessions, and those of the other one.
    answering = {asked(client, user("Hello"), session=session)[0] for session in SESSIONS}
    assert answering == homes.keys() - {ended}


def refusal(client: OpenAI, session: str) -> InternalServerError:
    """What is said to a request that is being served when its replica ends."""
    with pytest.raises(InternalServerError) as caught:
        asked(client, user("Tell me"), session=session, max_tokens=9000, **ENDLESS)
    return caught.value


def kill(replica: str) -> None:
    import ray

    [actor] = [one for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].endswith(f"#{replica}")]
    ray.kill(ray.get_actor(**actor))

