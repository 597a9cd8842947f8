"""The official client, whose types check every response, over all that the server can do."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from .serving import NAME, USER, Server, language_model

MESSAGES: Any = [USER]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
SUB = {"type": "function", "function": {"name": "sub"}}
TOOLS: Any = [ADD, SUB]


class Point(BaseModel):
    """What an answer may be."""

    x: bool
    y: bool


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    """One that refuses every response that is not of its types."""
    address = f"{server.address}/v1"
    with OpenAI(base_url=address, api_key="none", max_retries=0, _strict_response_validation=True) as one:
        yield one


@pytest.fixture(scope="module")
def lenient(client: OpenAI) -> OpenAI:
    """For streams of texts: a chunk has no reason to end, as OpenAI's own have none, and the types always have one."""
    return client.with_options(_extra_kwargs={"_strict_response_validation": False})


def chat(client: OpenAI, **fields: Any) -> ChatCompletion:
    """An answer of 12 tokens if nothing else is said."""
    answer: ChatCompletion = client.chat.completions.create(
        model=NAME, messages=fields.pop("messages", MESSAGES), **{"max_tokens": 12, **fields}
    )
    return answer


def said(client: OpenAI, **fields: Any) -> str:
    return chat(client, **fields).choices[0].message.content or ""


def continued(client: OpenAI, prompt: Any = "Once", **fields: Any) -> str:
    fields = {"max_tokens": 12, **fields}
    text: str = client.completions.create(model=NAME, prompt=prompt, **fields).choices[0].text
    return text


# ---- models


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    model = client.models.retrieve(NAME)
    about = model.to_dict()["receptance"]
    assert isinstance(about, dict)
    assert (about["version"], about["num_layers"], about["template"]) == ("7", 2, "g1") and "on" in about["think_modes"]
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("another")
    assert raised.value.code == "model_not_found" and raised.value.param == "model"


# ---- texts


def test_a_text_goes_on_as_the_library_says(client: OpenAI) -> None:
    expected = language_model().generate("Once", 40, sampling="official", temperature=0.0).text
    answer = client.completions.create(model=NAME, prompt="Once", max_tokens=40, temperature=0)
    assert answer.choices[0].text == expected and answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert usage is not None
    # The end of the text before stands before this one.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 40, 45)


def test_noise_is_the_librarys_too(client: OpenAI) -> None:
    expected = language_model().generate("Once", 40, sampling="official", seed=5).text
    assert continued(client, max_tokens=40, seed=5) == expected


def test_several_prompts_and_answers(client: OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt=["Once", "Twice"], n=2, max_tokens=12, seed=3)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3] and len(set(texts)) == 4
    assert texts[0] == continued(client, seed=3) and texts[2] == continued(client, "Twice", seed=3)


def test_token_ids_are_a_prompt(client: OpenAI) -> None:
    assert continued(client, [0, *b"Once"], seed=3) == continued(client, seed=3)


def test_echo_gives_the_prompt_back(client: OpenAI, lenient: OpenAI) -> None:
    assert continued(client, "Once", echo=True, seed=3) == "Once" + continued(client, seed=3)
    stream = lenient.completions.create(model=NAME, prompt="Once", echo=True, seed=3, max_tokens=12, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Once" + continued(client, seed=3)


def test_logprobs_of_a_text(client: OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt="Once", max_tokens=6, logprobs=3, temperature=0)
    told = answer.choices[0].logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    assert "".join(told.tokens) == answer.choices[0].text and told.text_offset == list(range(6))
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert logprob == max(top.values()) == top[token] and len(top) == 3


def test_a_stream_of_a_text_is_the_text(client: OpenAI, lenient: OpenAI) -> None:
    stream = lenient.completions.create(model=NAME, prompt="Once", max_tokens=30, seed=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == continued(client, max_tokens=30, seed=3)


# ---- conversations


def test_a_conversation_is_the_librarys(client: OpenAI) -> None:
    talk = language_model().chat(temperature=0.0, max_tokens=20)
    messages: list[Any] = []
    for question in ("Hello", "And then?"):
        messages.append({"role": "user", "content": question})
        answer = said(client, messages=messages, temperature=0, max_tokens=20)
        assert answer == talk.ask(question).text
        messages.append({"role": "assistant", "content": answer})


def test_a_seed_gives_the_same_answer_whole_and_as_a_stream(client: OpenAI) -> None:
    one = said(client, seed=7, max_tokens=30)
    assert one == said(client, seed=7, max_tokens=30) != said(client, seed=8, max_tokens=30)
    stream = client.chat.completions.create(model=NAME, messages=MESSAGES, seed=7, max_tokens=30, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == one


def test_several_answers_are_those_that_one_gives_and_others(client: OpenAI) -> None:
    answer = chat(client, n=3, seed=7)
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3 and texts[0] == said(client, seed=7)
    assert answer.usage is not None and answer.usage.completion_tokens == 36
    stream = client.chat.completions.create(model=NAME, messages=MESSAGES, seed=7, n=3, max_tokens=12, stream=True)
    found = ["", "", ""]
    for chunk in stream:
        found[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert found == texts


def test_the_helper_for_streams(client: OpenAI) -> None:
    whole = said(client, seed=7, max_tokens=30)
    with client.chat.completions.stream(
        model=NAME, messages=MESSAGES, seed=7, max_tokens=30, stop=whole[20:24]
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == whole[:20] and answer.choices[0].finish_reason == "stop"
    assert kinds.count("content.delta") >= 10 and kinds[-1] == "content.done"


def test_the_last_chunk_tells_the_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=NAME, messages=MESSAGES, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert not last.choices and last.usage is not None and last.usage.completion_tokens == 12
    assert len({chunk.id for chunk in (*chunks, last)}) == 1


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_bounded(client: OpenAI, field: str) -> None:
    answer = client.chat.completions.create(model=NAME, messages=MESSAGES, **{field: 5})
    assert answer.choices[0].finish_reason == "length" and answer.usage and answer.usage.completion_tokens == 5


@pytest.mark.parametrize("many", [False, True])
def test_a_stop_ends_the_answer_and_is_no_part_of_it(client: OpenAI, many: bool) -> None:
    whole = said(client, seed=7, max_tokens=30)
    stop = whole[14:17]
    answer = chat(client, seed=7, max_tokens=30, stop=["\0", stop] if many else stop)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    streamed = client.chat.completions.create(
        model=NAME, messages=MESSAGES, seed=7, max_tokens=30, stop=stop, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == whole[: whole.index(stop)]


def test_logprobs_of_an_answer(client: OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=4, temperature=0, max_tokens=8)
    told = answer.choices[0].logprobs
    assert told is not None and told.content is not None
    assert "".join(token.token for token in told.content) == answer.choices[0].message.content
    for token in told.content:
        assert len(token.top_logprobs) == 4 and token.logprob == token.top_logprobs[0].logprob
        assert bytes(token.bytes or []) == token.token.encode()
        assert sum(math.exp(likely.logprob) for likely in token.top_logprobs) <= 1.0001
    stream = client.chat.completions.create(
        model=NAME, messages=MESSAGES, logprobs=True, top_logprobs=4, temperature=0, max_tokens=8, stream=True
    )
    streamed = [
        token
        for chunk in stream
        if chunk.choices[0].logprobs is not None
        for token in chunk.choices[0].logprobs.content or ()
    ]
    assert streamed == told.content


def test_penalties(client: OpenAI) -> None:
    only = {str(ord(letter)): 100.0 for letter in "ab"}
    free = said(client, temperature=0, logit_bias=only, max_tokens=20)
    assert set(free) <= set("ab")
    for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        assert set(said(client, temperature=0, logit_bias=only, max_tokens=20, **penalty)) <= set("ab")
    many = said(client, temperature=0, max_tokens=60, frequency_penalty=2.0, extra_body={"penalty_decay": 1.0})
    few = said(client, temperature=0, max_tokens=60, frequency_penalty=0.0)
    assert len(set(many)) > len(set(few))


def test_logit_bias_forces_and_forbids(client: OpenAI) -> None:
    assert said(client, logit_bias={str(ord("Q")): 100}) == "Q" * 12
    likeliest = said(client, temperature=0, max_tokens=1)
    assert said(client, temperature=0, max_tokens=1, logit_bias={str(ord(likeliest)): -100}) != likeliest


# ---- thoughts


def test_a_thought_stands_beside_the_answer(client: OpenAI) -> None:
    body = {"think": "on", "regex": "yes|no", "think_budget": 6}
    answer = chat(client, seed=7, max_tokens=60, extra_body=body)
    message = answer.choices[0].message
    thought = message.to_dict()["reasoning_content"]
    assert message.content in ("yes", "no") and thought and answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    assert 6 <= (answer.usage.completion_tokens_details.reasoning_tokens or 0) < answer.usage.completion_tokens
    stream = client.chat.completions.create(
        model=NAME, messages=MESSAGES, seed=7, max_tokens=60, stream=True, extra_body=body
    )
    deltas = [chunk.choices[0].delta.to_dict() for chunk in stream]
    assert "".join(str(delta.get("reasoning_content", "")) for delta in deltas) == thought
    assert "".join(str(delta.get("content") or "") for delta in deltas) == message.content


def test_an_effort_is_a_think_mode(client: OpenAI) -> None:
    assert said(client, seed=7, reasoning_effort="none") == said(client, seed=7, extra_body={"think": "off"})
    message = chat(client, seed=7, reasoning_effort="high").choices[0].message.to_dict()
    assert message["reasoning_content"] and not message["content"]


def test_no_budget_ends_a_thought_at_once(client: OpenAI) -> None:
    body = {"think": "on", "think_budget": 0, "regex": "[a-z]{3}"}
    message = chat(client, max_tokens=60, extra_body=body).choices[0].message
    assert re.fullmatch("[a-z]{3}", message.content or "") and not (message.to_dict().get("reasoning_content") or "")


# ---- tools


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}], ids=["any", "add"])
@pytest.mark.parametrize("think", ["off", "on"])
def test_a_call_that_has_to_be(client: OpenAI, choice: Any, think: str) -> None:
    body = {"think": think, "think_budget": 4}
    fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 400, "extra_body": body}
    answer = chat(client, seed=7, **fields)
    [call] = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls" and call.type == "function"
    assert call.function.name in ("add", "sub") if choice == "required" else call.function.name == "add"
    arguments = json.loads(call.function.arguments)
    possible = [{"a": a, "b": b} for a in (1, 2) for b in (True, False)]
    assert arguments in ([{}] if call.function.name == "sub" else possible)
    stream = client.chat.completions.create(model=NAME, messages=MESSAGES, seed=7, stream=True, **fields)
    pieces = [piece for chunk in stream for piece in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(piece.function.arguments or "" for piece in pieces if piece.function) == call.function.arguments


def test_a_conversation_goes_on_after_a_call(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "add"}}
    message = chat(client, tools=TOOLS, tool_choice=choice, max_tokens=400).choices[0].message
    [call] = message.tool_calls or []
    messages = [*MESSAGES, message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "2"}]
    assert len(said(client, messages=messages, tools=TOOLS, tool_choice="none")) == 12


def test_the_helper_reads_the_arguments_of_a_call(client: OpenAI) -> None:
    class Add(BaseModel):
        a: bool

    answer = client.chat.completions.parse(
        model=NAME,
        messages=MESSAGES,
        tools=[openai.pydantic_function_tool(Add)],
        tool_choice="required",
        max_tokens=400,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Add)


# ---- forms


def test_an_answer_of_a_schema(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=NAME, messages=MESSAGES, response_format=Point, max_tokens=300, seed=7
    )
    assert isinstance(answer.choices[0].message.parsed, Point) and answer.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(
        model=NAME, messages=MESSAGES, response_format=Point, max_tokens=300, seed=7
    ) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed


@pytest.mark.parametrize("seed", range(3))
def test_any_json_object(client: OpenAI, seed: int) -> None:
    bias = {str(ord('"')): 20.0, str(ord("}")): 20.0}
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=400, seed=seed, logit_bias=bias)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_regular_expression_and_a_grammar(client: OpenAI) -> None:
    for body in ({"regex": "[ab]{4}-(x|y)"}, {"grammar": 'start: /[ab]{4}/ "-" ("x" | "y")'}):
        for seed in range(3):
            assert re.fullmatch("[ab]{4}-[xy]", said(client, seed=seed, extra_body=body, max_tokens=40))
            assert re.fullmatch("[ab]{4}-[xy]", continued(client, seed=seed, extra_body=body, max_tokens=40))


# ---- this server's own fields


def test_filters(client: OpenAI) -> None:
    greedy = said(client, temperature=0)
    assert said(client, extra_body={"top_k": 1}) == greedy == said(client, extra_body={"min_p": 1.0})
    assert said(client, top_p=0.0) == greedy
    usual = said(client, seed=1, top_p=0.5, temperature=1.5, extra_body={"order": "usual"})
    assert usual != said(client, seed=1, top_p=0.5, temperature=1.5, extra_body={"order": "official"})


def test_a_conversation_goes_on_from_a_stored_one(client: OpenAI, server: Server) -> None:
    first = {"role": "assistant", "content": said(client, temperature=0)}
    messages = [USER, first, {"role": "user", "content": "And?"}]
    assert said(client, temperature=0, extra_body={"save_state": "talk"}) == messages[1]["content"]
    following = chat(client, messages=messages[2:], temperature=0, extra_body={"state": "talk"})
    assert following.choices[0].message.content == said(client, messages=messages, temperature=0)
    assert following.usage is not None and following.usage.prompt_tokens < 40
    server.json("DELETE", "/v1/states/talk")
    with pytest.raises(openai.NotFoundError, match="talk"):
        said(client, extra_body={"state": "talk"})


def test_a_text_goes_on_from_a_stored_one(client: OpenAI, server: Server) -> None:
    first = continued(client, temperature=0, extra_body={"save_state": "text"})
    assert continued(client, "!", temperature=0, extra_body={"state": "text"}) == continued(
        client, f"Once{first}!", temperature=0
    )
    server.json("DELETE", "/v1/states/text")


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_read_is_not_read_again(client: OpenAI, stream: bool) -> None:
    messages: Any = [{"role": "system", "content": f"{stream} " * 40}, USER]
    first = chat(client, messages=messages, seed=1)
    again = chat(client, messages=messages, seed=1)
    assert again.choices[0].message.content == first.choices[0].message.content
    assert first.usage and first.usage.prompt_tokens_details and again.usage and again.usage.prompt_tokens_details
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens
    without = chat(client, messages=messages, seed=1, extra_body={"cache": False})
    assert without.choices[0].message.content == first.choices[0].message.content
    assert without.usage and without.usage.prompt_tokens_details
    assert without.usage.prompt_tokens_details.cached_tokens == 0


def test_guessing_changes_nothing(client: OpenAI, server: Server) -> None:
    before = server.metric("tokens_guessed_total")
    prompt = "one two three one two three one two three one two "
    fields: dict[str, Any] = {"max_tokens": 60, "temperature": 0}
    assert continued(client, prompt, **fields, extra_body={"speculate": True}) == continued(client, prompt, **fields)
    assert server.metric("tokens_guessed_total") > before


def test_an_answer_is_cut_off_when_its_time_is_over(client: OpenAI) -> None:
    begun = time.monotonic()
    answer = chat(client, max_tokens=16384, extra_body={"timeout": 0.2})
    assert time.monotonic() - begun < 3 and answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and 0 < answer.usage.completion_tokens < 16384


def test_priority_is_taken(client: OpenAI) -> None:
    assert said(client, seed=7, extra_body={"priority": 5}) == said(client, seed=7)


# ---- refusals


def test_what_is_wrong_is_said_with_the_field(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, temperature=9)
    assert raised.value.param == "temperature" and "2" in raised.value.message
    with pytest.raises(openai.BadRequestError, match="no field colour"):
        chat(client, extra_body={"colour": "red"})


def test_clients_that_wait_for_nothing_at_once(server: Server) -> None:
    """The asynchronous client, many at a time."""
    import asyncio

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none") as client:
            answers = await asyncio.gather(
                *(
                    client.completions.create(model=NAME, prompt="Once", max_tokens=12, seed=seed % 4)
                    for seed in range(32)
                )
            )
        return [answer.choices[0].text for answer in answers]

    found = asyncio.run(ask())
    alone = [server.complete(max_tokens=12, seed=seed)["choices"][0]["text"] for seed in range(4)]
    assert found == alone * 8
