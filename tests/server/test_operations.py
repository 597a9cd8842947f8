"""What operators see: models, health, numbers that move, and a log without a word of what was said."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from receptance.engine import Engine
from receptance.server import Options, Service, Settings, telling

from .serving import NAME, Server, language_model, serving, wait_for

SECRET = "xylophone"


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """With two places, and one more that may wait."""
    with serving(Settings(stuck_seconds=0.3), slots=2, waiting=1) as running:
        yield running


def test_a_model_tells_about_itself(server: Server) -> None:
    [model] = server.json("GET", "/v1/models")["data"]
    assert model == server.json("GET", f"/v1/models/{NAME}")
    about = model["receptance"]
    assert (about["dim"], about["vocab_size"], about["adapters"], about["states"]) == (32, 256, [], [])
    assert about["default_think"] in about["think_modes"] and about["sampling"]["temperature"] > 0


def test_the_description_tells_of_the_failures_that_there_are(server: Server) -> None:
    found = server.json("GET", "/openapi.json")
    assert "HTTPValidationError" not in found["components"]["schemas"]
    for path in found["paths"].values():
        for operation in path.values():
            assert {"400", "401", "429", "503", "default"} <= operation["responses"].keys()
            error = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorBody"}


def test_health_tells_how_busy_it_is(small: Server) -> None:
    assert small.json("GET", "/health") == {"status": "ok", "waiting": 0, "active": 0, "slots": 2}
    assert small.json("GET", "/ready") == small.json("GET", "/health")
    with small.stream(max_tokens=16384) as chunks:
        next(chunks)
        assert small.json("GET", "/health")["active"] == 1
    small.wait_for("batch", 0.0, 5)


def test_the_page_for_prometheus_can_be_read(server: Server) -> None:
    response = server.web.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert len(families) > 15 and all(family.documentation for family in families.values())
    assert all(name.startswith("receptance_") for name in families)


def test_the_numbers_move(server: Server) -> None:
    names = ("tokens_read_total", "tokens_chosen_total", "cache_misses_total", "cache_hits_total",
             "cache_saved_tokens_total", "steps_total", "cache_states", "cache_bytes",
             "request_seconds_count", "time_to_first_token_seconds_count", "time_per_token_seconds_count")  # fmt: skip

    def numbers() -> dict[str, float]:
        return {name: server.metric(name) for name in names} | {
            "length": server.metric("answers_total", reason="length"),
            "stop": server.metric("answers_total", reason="stop"),
        }

    prompt = "a prompt that nobody has sent before"
    before = numbers()
    server.complete(prompt, max_tokens=5)
    once = {name: value - before[name] for name, value in numbers().items()}
    assert once["tokens_read_total"] == len(prompt) + 1 and once["tokens_chosen_total"] == 5 == once["steps_total"]
    assert once["cache_misses_total"] == 1 and once["cache_hits_total"] == 0 and once["length"] == 1
    assert once["cache_states"] >= 1 and once["cache_bytes"] > 1000
    assert [once[name] for name in names[-3:]] == [1, 1, 1]
    server.complete(prompt, max_tokens=5, logit_bias={str(ord("a")): 100}, stop="a")
    twice = {name: value - before[name] for name, value in numbers().items()}
    assert twice["tokens_read_total"] == once["tokens_read_total"] and twice["stop"] == 1
    assert twice["cache_hits_total"] == 1 and twice["cache_saved_tokens_total"] == len(prompt) + 1


def test_who_waits_and_who_is_served(small: Server) -> None:
    with small.stream(max_tokens=16384) as one, small.stream(max_tokens=16384) as two:
        next(one), next(two)
        assert (small.metric("batch"), small.metric("slots"), small.metric("queue")) == (2, 2, 0)
        third = threading.Thread(target=small.complete, kwargs={"max_tokens": 2})
        third.start()
        small.wait_for("queue", 1.0, 5)
        response = small.web.post("/v1/completions", json={"model": NAME, "prompt": "Once"})
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "rate_limit_exceeded"
    third.join(10)
    assert not third.is_alive()
    small.wait_for("queue", 0.0, 5)


def test_a_step_that_takes_too_long_is_told(small: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    step, stuck = Engine._continue, threading.Event()

    def slow(self: Engine) -> None:
        stuck.wait(10)
        step(self)

    monkeypatch.setattr(Engine, "_continue", slow)
    waiting = threading.Thread(target=small.complete, kwargs={"max_tokens": 2})
    waiting.start()
    wait_for(lambda: small.web.get("/health").status_code == 503, 5)
    response = small.web.get("/health")
    assert "stuck" in response.json()["error"]["message"] and response.headers["retry-after"]
    assert small.web.post("/v1/completions", json={"model": NAME, "prompt": "Once"}).status_code == 503
    assert small.metric("step_seconds") > 0.3
    stuck.set()
    waiting.join(10)
    small.is_well()


def test_a_stream_says_that_it_is_still_there(small: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    step, slow = Engine._continue, threading.Event()
    monkeypatch.setattr(telling, "BEAT", 0.02)
    monkeypatch.setattr(Engine, "_continue", lambda self: (slow.wait(0.2), step(self)))
    body = {"model": NAME, "prompt": "Once", "max_tokens": 2, "stream": True}
    lines = small.web.post("/v1/completions", json=body).text.split("\n\n")
    assert lines.count(": still here") >= 4 and lines[-2] == "data: [DONE]"
    assert len([line for line in lines if line.startswith("data: {")]) == 3


def test_it_is_not_ready_before_it_is(small: Server) -> None:
    small.service.is_ready.clear()
    response = small.web.get("/ready")
    assert response.status_code == 503 and "starting" in response.json()["error"]["message"]
    assert small.json("GET", "/health")["status"] == "starting"
    small.service.is_ready.set()
    assert small.web.get("/ready").status_code == 200


def test_a_model_that_cannot_answer_does_not_get_ready(caplog: pytest.LogCaptureFixture) -> None:
    lm = language_model()
    with torch.no_grad():
        lm.model.head.weight.fill_(float("nan"))
    service = Service(lm, NAME, Options())
    service.warm_up()
    service.close()
    assert not service.is_ready.is_set() and "does not get ready" in caplog.text


def test_the_log_tells_of_each_request_and_not_what_it_says(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = server.chat({"role": "user", "content": SECRET}, max_tokens=7, seed=1)
    answer = said["choices"][0]["message"]["content"]
    with server.stream("/v1/chat/completions", messages=[{"role": "user", "content": SECRET}], max_tokens=7) as chunks:
        list(chunks)
    server.complete(SECRET, max_tokens=7, n=2)
    server.web.post("/v1/completions", json={"model": NAME, "prompt": "a", "stop": [SECRET] * 50})
    server.web.post("/v1/completions", content=SECRET, headers={"content-type": "application/json"})
    server.json("POST", "/v1/states", json={"name": "a", "model": NAME, "prompt": SECRET})
    lines = [record.getMessage() for record in caplog.records if record.name == "receptance.server"]
    told = [json.loads(line) for line in lines]
    assert [one["chosen"] for one in told] == [7, 7, 14] and told[0]["id"] == said["id"]
    assert told[0].keys() == {
        "id", "caller", "model", "read", "cached", "chosen", "reasons", "first_token_seconds", "seconds", "left"
    }  # fmt: skip
    assert told[2]["reasons"] == ["length", "length"] and not any(one["left"] for one in told)
    everything = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("receptance"))
    assert SECRET not in everything and answer not in everything


def test_an_answer_that_nobody_waited_for_is_in_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "receptance.server")
    with server.stream(max_tokens=16384) as chunks:
        next(chunks)
        time.sleep(0.05)
    wait_for(lambda: "receptance.server" in {record.name for record in caplog.records}, 5)
    [told] = [json.loads(record.getMessage()) for record in caplog.records if record.name == "receptance.server"]
    assert told["left"] and 0 < told["chosen"] < 16384 and told["reasons"] == ["length"]
