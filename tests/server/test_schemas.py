"""What comes in: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from receptance.server.parts import DEEPEST_JSON, joined
from receptance.server.refusals import Refusal, refusal_of
from receptance.server.schemas import ChatRequest, CompletionRequest, GenerationRequest

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "add"}}


def refused(kind: type[GenerationRequest], **fields: Any) -> Refusal:
    """What is said of a body that must be refused."""
    body = {"model": "m", **fields}
    with pytest.raises(ValidationError) as raised:
        kind.model_validate(body)
    return refusal_of(raised.value.errors(), body)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [USER], **fields})


def nested(depth: int) -> dict[str, Any]:
    return json.loads('{"a":' * depth + "{}" + "}" * depth)  # type: ignore[no-any-return]


def test_everything_that_official_clients_send_is_taken() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    request = chat(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Hello", "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "audio": None},
            {"role": "tool", "content": "2", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "Two.", "reasoning_content": "1 + 1", "annotations": []},
            USER,
        ],
        frequency_penalty=0.5,
        logit_bias={"11": -100},
        logprobs=True,
        top_logprobs=20,
        max_completion_tokens=10,
        metadata={"a": "b"},
        modalities=["text"],
        n=2,
        parallel_tool_calls=False,
        presence_penalty=-2,
        prompt_cache_key="k",
        reasoning_effort="xhigh",
        response_format={"type": "text"},
        safety_identifier="s",
        seed=2**63 - 1,
        service_tier="auto",
        stop=["\n", "x"],
        store=True,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        tool_choice={"type": "function", "function": {"name": "add"}},
        tools=[{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}, "strict": True}}],
        top_p=1,
        user="u",
        verbosity="low",
    )
    assert [message.role for message in request.messages] == [
        *("developer", "user", "assistant", "tool", "assistant", "user"),
    ]
    assert joined(request.messages[0].content) == "Be\nbrief." and request.forces_call


@pytest.mark.parametrize("prompt", ["a", None, ["a", "b"], [1, 2], [[1, 2], [3]], list(range(100))], ids=repr)
def test_prompts_of_every_kind(prompt: Any) -> None:
    taken = CompletionRequest.model_validate({"model": "m", "prompt": prompt}).prompt
    one = prompt is None or isinstance(prompt, str) or isinstance(prompt[0], int)
    assert taken == ([prompt or ""] if one else prompt)


CHATS: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "messages is missing; give it", "messages"),
    ({"messages": []}, "messages should have at least 1 item, not 0", "messages"),
    ({"frequency_penality": 1}, "there is no field frequency_penality; leave it out", "frequency_penality"),
    ({"temperature": 9}, "temperature should be less than or equal to 2, got 9", "temperature"),
    ({"temperature": float("nan")}, "temperature should be a finite number, got nan", "temperature"),
    ({"top_p": float("inf")}, "top_p should be a finite number, got inf", "top_p"),
    ({"n": 17}, "n should be less than or equal to 16, got 17", "n"),
    ({"n": True}, "n should be a valid integer, got True", "n"),
    ({"seed": "1"}, "seed should be a valid integer, got '1'", "seed"),
    ({"stop": ["a"] * 17}, "stop should have at most 16 items, not 17", "stop"),
    ({"stop": ""}, "stop should have at least 1 character, got ''", "stop"),
    ({"stop": 1}, "stop: it must be a text or a list of texts", "stop"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a should match pattern '^[0-9]{1,7}$', got 'a'", "logit_bias.a"),
    ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias should have at most 1024 items", None),
    ({"top_logprobs": 2}, "top_logprobs goes with logprobs; set logprobs to true, or leave it out", None),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs should be less than or equal to 20, got 21", None),
    ({"stream_options": {}}, "stream_options goes with stream; set stream to true, or leave it out", None),
    ({"tool_choice": "required"}, "tool_choice asks for a call and there are no tools; give tools", None),
    ({"tool_choice": {**TOOL, "function": {"name": "b"}}, "tools": [TOOL]}, "tool_choice names b, which is none", None),
    ({"tool_choice": "any"}, "tool_choice should be 'none', 'auto' or 'required', got 'any'", "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name is missing; give it", None),
    ({"tools": [TOOL, TOOL]}, "two tools have one name; give each a name of its own", None),
    ({"tools": [TOOL] * 129}, "tools should have at most 128 items, not 129", "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name should match", None),
    ({"response_format": {"type": "xml"}}, "'type' of response_format must be one of 'text', 'json_object'", None),
    ({"regex": "a", "response_format": {"type": "json_object"}}, "response_format and regex each give the", None),
    ({"regex": "a", "tools": [TOOL], "tool_choice": "required"}, "regex and tool_choice each give the answer", None),
    ({"regex": "a", "grammar": "start: /a/"}, "grammar and regex exclude each other; give one of them", None),
    ({"think": "on", "reasoning_effort": "low"}, "think and reasoning_effort say the same; give one of them", None),
    ({"save_state": "a/b"}, "save_state should match pattern", "save_state"),
    ({"save_state": "a", "n": 2}, "save_state stores one conversation; set n to 1, or leave it out", None),
    ({"functions": []}, "there is no field functions; leave it out", "functions"),
]


@pytest.mark.parametrize(("fields", "said", "param"), CHATS, ids=lambda value: str(value)[:40])
def test_what_a_chat_may_not_ask(fields: dict[str, Any], said: str, param: str | None) -> None:
    refusal = refused(ChatRequest, **({"messages": [USER]} if fields else {}) | fields)
    assert refusal.message.startswith(said) and "\n" not in refusal.message
    assert param in (None, refusal.param)


MESSAGES: list[tuple[Any, str]] = [
    ("Hello", "messages.0 should be a valid dictionary"),
    ({"role": "robot", "content": "x"}, "'role' of messages.0 must be one of 'system', 'developer', 'user'"),
    ({"content": "x"}, "messages.0 needs the field 'role'; give it"),
    ({"role": "user"}, "messages.0.content is missing; give it"),
    ({"role": "user", "content": None}, "messages.0.content: it must be a text or a list of parts of the type 'text'"),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        "messages.0.content: this model reads text only, and a part has the type 'image_url'; send 'text' parts",
    ),
    ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text is missing; give it"),
    ({"role": "user", "content": "x", "mood": "bad"}, "there is no field messages.0.mood; leave it out"),
    ({"role": "user", "content": "a\ud800"}, "messages.0.content should be a valid string, unable to parse raw data"),
    ({"role": "user", "content": "a" * (2**22 + 1)}, "messages.0.content should have at most 4194304 characters"),
    ({"role": "assistant"}, "messages.0: a message of the assistant needs content or tool_calls"),
    ({"role": "tool", "content": "x"}, "messages.0.tool_call_id is missing; give it"),
]


@pytest.mark.parametrize(("message", "said"), MESSAGES, ids=lambda value: str(value)[:40])
def test_messages_that_are_none(message: Any, said: str) -> None:
    refusal = refused(ChatRequest, messages=[message])
    assert refusal.message.startswith(said) and (refusal.param or "").startswith("messages.0")
    # It can be told in JSON.
    json.dumps(refusal, ensure_ascii=False).encode()


COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt is missing; give it"),
    ({"prompt": []}, "prompt: it must be a text, a list of texts, a list of token ids, or a list of such lists"),
    ({"prompt": ["a", 1]}, "prompt: it must be a text"),
    ({"prompt": [True]}, "prompt: it must be a text"),
    ({"prompt": [1, -1]}, "prompt.0 should be greater than or equal to 0, got -1"),
    ({"prompt": [[]]}, "prompt.0 should have at least 1 item, not 0"),
    ({"prompt": ["a"] * 65}, "prompt should have at most 64 items, not 65"),
    ({"prompt": "a", "suffix": "b"}, "suffix: this model goes on with a text and cannot fill in before another"),
    ({"prompt": "a", "best_of": 2}, "best_of must equal n: answers are not compared; leave it out"),
    ({"prompt": "a", "echo": True, "logprobs": 1}, "the logprobs of a prompt are not computed; leave out echo or"),
    ({"prompt": ["a", "b"], "save_state": "x"}, "save_state stores one conversation; give one prompt, or leave it"),
]


@pytest.mark.parametrize(("fields", "said"), COMPLETIONS, ids=lambda value: str(value)[:40])
def test_what_a_completion_may_not_ask(fields: dict[str, Any], said: str) -> None:
    assert refused(CompletionRequest, **fields).message.startswith(said)


def test_the_depth_and_length_of_schemas_are_bounded() -> None:
    def tools(parameters: Any) -> dict[str, Any]:
        return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}

    assert chat(**tools(nested(DEEPEST_JSON - 1)))
    for parameters, said in [
        (nested(DEEPEST_JSON), "it is nested more than 32 levels deep; flatten it"),
        ({"a": float("nan")}, "it holds NaN, Infinity or half of a surrogate pair, which JSON cannot; correct it"),
        ({"a": ["\ud800"]}, "it holds NaN, Infinity or half of a surrogate pair, which JSON cannot; correct it"),
        ({"a": "a" * 2**17}, "it is longer than 131,072 bytes; make it shorter"),
    ]:
        refusal = refused(ChatRequest, messages=[USER], **tools(parameters))
        assert refusal == (f"tools.0.function.parameters: {said}", "tools.0.function.parameters")


def test_a_body_that_is_no_object() -> None:
    with pytest.raises(ValidationError) as raised:
        ChatRequest.model_validate([1])
    said = refusal_of(raised.value.errors(), [1])
    assert said == ("the body should be a valid dictionary or instance of ChatRequest, got [1]", None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "\ud800", "x"]), anything, max_size=5))
def test_whatever_comes_is_taken_or_refused_in_one_sentence(body: dict[str, Any]) -> None:
    try:
        ChatRequest.model_validate(body)
    except ValidationError as error:
        message, param = refusal_of(error.errors(), body)
        assert message and "\n" not in message and len(message) < 1000
        json.dumps([message, param], ensure_ascii=False).encode()


def test_the_schema_for_users_describes_what_is_taken() -> None:
    schema = ChatRequest.model_json_schema()
    assert schema["additionalProperties"] is False and set(schema["required"]) == {"model", "messages"}
    content = schema["$defs"]["UserMessage"]["properties"]["content"]["anyOf"]
    assert [kind["type"] for kind in content] == ["string", "array"]
    prompt = CompletionRequest.model_json_schema()["properties"]["prompt"]
    assert [kind["type"] for kind in prompt["anyOf"]] == ["string", "array", "array", "array", "null"]
    assert "maxItems" not in prompt
