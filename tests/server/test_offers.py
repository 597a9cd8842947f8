"""What one model is offered as besides itself: with an adapter's additions, after a tuned state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from receptance.adapters import add_adapter, load_adapter, merge_adapter, save_adapter
from receptance.errors import CheckpointError, InputError, StateError
from receptance.language_model import LanguageModel
from receptance.server import Options, Service
from receptance.state import State

from ..generation.models import small
from ..small_models import speaking
from .serving import NAME, USER, Server, language_model, serving

pytest.importorskip("peft")

POET, CALM = f"{NAME}:poet", f"{NAME}:calm"
MORE = {"role": "user", "content": "And then?"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an adapter and a state that change what is said."""
    folder: Path = tmp_path_factory.mktemp("offers")
    model = speaking()
    add_adapter(model, rank=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_adapter(model, folder / "poet")
    base = speaking()
    with torch.no_grad():
        _, state = base(torch.tensor([[0, *b"a calm beginning"]]))
    state.save(folder / "calm.safetensors", base)
    return folder


@pytest.fixture(scope="module")
def offering(folder: Path) -> Iterator[Server]:
    with serving(adapters={"poet": folder / "poet"}, states={"calm": folder / "calm.safetensors"}, slots=4) as running:
        yield running


@pytest.fixture(scope="module")
def poet(folder: Path) -> LanguageModel:
    return language_model(merge_adapter(load_adapter(speaking(), folder / "poet")))


@pytest.fixture(scope="module")
def calm(folder: Path) -> State:
    return language_model().load_state(folder / "calm.safetensors")


def said(server: Server, *messages: Any, **fields: Any) -> str:
    answer = server.chat(*messages, temperature=0, max_tokens=16, **fields)
    assert answer["model"] == fields.get("model", NAME)
    return answer["choices"][0]["message"]["content"]  # type: ignore[no-any-return]


def continued(server: Server, model: str, prompt: str = "Once") -> str:
    answer = server.complete(prompt, temperature=0, max_tokens=16, model=model)
    return answer["choices"][0]["text"]  # type: ignore[no-any-return]


def test_all_are_listed(offering: Server) -> None:
    models = offering.json("GET", "/v1/models")["data"]
    assert [model["id"] for model in models] == [NAME, POET, CALM]
    assert models[0]["receptance"]["adapters"] == ["poet"] and models[0]["receptance"]["states"] == ["calm"]
    assert offering.json("GET", f"/v1/models/{POET}")["id"] == POET


def test_an_adapter_is_a_model_of_its_own(offering: Server, poet: LanguageModel) -> None:
    expected = poet.generate("Once", 16, sampling="official", temperature=0.0).text
    assert continued(offering, POET) == expected != continued(offering, NAME)
    assert offering.metric("tokens_chosen_total", model="poet") >= 16


def test_a_tuned_state_is_where_everything_begins(offering: Server, calm: State) -> None:
    expected = language_model().generate("Once", 16, sampling="official", temperature=0.0, state=calm).text
    assert continued(offering, CALM) == expected != continued(offering, NAME)


def test_a_conversation_after_a_tuned_state_is_the_librarys(offering: Server, calm: State) -> None:
    talk = language_model().chat(temperature=0.0, max_tokens=16, state=calm)
    first = talk.ask(USER["content"]).text
    assert said(offering, USER, model=CALM) == first
    messages = [USER, {"role": "assistant", "content": first}, MORE]
    assert said(offering, *messages, model=CALM) == talk.ask(MORE["content"]).text


def test_neither_remembers_for_the_other(offering: Server) -> None:
    """One cache serves all of them: a text that one has read is none that another knows."""
    prompt = "a text that all of them are asked to go on with"
    answers = {model: [continued(offering, model, prompt) for _ in range(2)] for model in (NAME, POET, CALM)}
    assert len({first for first, _ in answers.values()}) == 3
    assert all(first == again for first, again in answers.values())
    usage = offering.complete(prompt, max_tokens=1, model=POET)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


@pytest.mark.parametrize("model", [POET, CALM])
def test_a_conversation_is_stored_with_its_model(offering: Server, model: str) -> None:
    first = said(offering, USER, model=model, save_state="talk")
    messages = [USER, {"role": "assistant", "content": first}, MORE]
    assert said(offering, MORE, model=model, state="talk") == said(offering, *messages, model=model)
    body = {"model": NAME, "messages": [MORE], "state": "talk"}
    response = offering.web.post("/v1/chat/completions", json=body)
    assert response.status_code == 404 and f"was led with {model}" in response.json()["error"]["message"]
    saved = offering.json("POST", "/v1/states", json={"name": "read", "model": model, "messages": [USER]})
    assert saved["model"] == model
    more = {"role": "user", "content": "Well?"}
    assert said(offering, more, model=model, state="read") == said(offering, USER, more, model=model)


@pytest.mark.parametrize("model", [POET, CALM])
def test_a_look_is_the_models_own(offering: Server, model: str) -> None:
    looks = [offering.json("POST", "/v1/look", json={"model": one, "messages": [USER]}) for one in (NAME, model)]
    assert looks[0]["layers"] != looks[1]["layers"]
    # A tuned state is something that a message changes.
    assert (looks[1]["layers"][0]["change"] is None) == (model == POET)


def test_what_cannot_be_offered(folder: Path, tmp_path: Path) -> None:
    lm = language_model()
    with pytest.raises(InputError, match="both called a"):
        Service(lm, NAME, Options(adapters={"a": folder / "poet"}, states={"a": folder / "calm.safetensors"}))
    with pytest.raises(CheckpointError, match="is no folder of an adapter"):
        Service(lm, NAME, Options(adapters={"a": tmp_path}))
    other = small("6", dtype=torch.float32)
    other.zero_state(1).save(tmp_path / "other", other)
    with pytest.raises(StateError, match="another model"):
        Service(lm, NAME, Options(states={"a": tmp_path / "other"}))
    lm.model.zero_state(2).save(tmp_path / "two", lm.model)
    with pytest.raises(InputError, match="holds 2 states"):
        Service(lm, NAME, Options(states={"a": tmp_path / "two"}))
