"""Tokens in, events out, and responses made of them, which OpenAI's own types must take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types import Completion as OpenAICompletion
from openai.types import Model as OpenAIModel
from openai.types.chat import ChatCompletion as OpenAIChat
from openai.types.chat import ChatCompletionChunk as OpenAIChunk
from openai.types.shared import ErrorObject

from receptance.engine.request import Chosen, EndReason
from receptance.server.answers import AnswerListener, Call, Event, Finished, Text, Thought
from receptance.server.bodies import ChatBodies, Head, TextBodies, token_text
from receptance.server.rendering import Defaults, Rendered, render_chat, render_prompts
from receptance.server.responses import Error, ErrorBody, Model, ModelAbout, ModelList
from receptance.server.schemas import ChatRequest, CompletionRequest
from receptance.state import State
from receptance.templates import TEMPLATES, parse_tool_calls, split_reply
from receptance.tokenizers import ByteTokenizer, Tokenizer, WorldTokenizer

from ..generation.models import small

BYTES, WORLD = ByteTokenizer(), WorldTokenizer()
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = '```json\n{"name":"add","arguments":{"a":1,"b":"```"}}\n```'


def asked(tokenizer: Tokenizer, template: str = "g1", **fields: Any) -> Rendered:
    rules = Defaults(tokenizer=tokenizer, template=TEMPLATES[template], vocab_size=tokenizer.vocab_size)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return render_chat(ChatRequest.model_validate(body), rules)


def asked_text(tokenizer: Tokenizer, **fields: Any) -> Rendered:
    rules = Defaults(tokenizer=tokenizer, template=TEMPLATES["g1"], vocab_size=tokenizer.vocab_size)
    [rendered] = render_prompts(CompletionRequest.model_validate({"model": "m", "prompt": "Once", **fields}), rules)
    return rendered


def answered(
    rendered: Rendered,
    tokenizer: Tokenizer,
    tokens: Iterable[int | Chosen],
    reason: EndReason = "cancelled",
    state: State | None = None,
    error: str = "",
) -> list[Event]:
    """The events of an answer of which the engine chooses these tokens, as many as are wanted."""
    events: list[Event] = []
    listener = AnswerListener(rendered, tokenizer, events.append)
    listener.read(num_cached=3)
    for token in tokens:
        if not listener.chosen(token if isinstance(token, Chosen) else Chosen(token)):
            reason = "stop"
            break
    listener.ended(reason, state, error)
    assert isinstance(events[-1], Finished) and all(event.text for event in events if isinstance(event, Text | Thought))
    return events


def told(events: Sequence[Event]) -> tuple[str, str, list[tuple[str, Any]]]:
    """Thought, text and calls."""
    thought, text = ("".join(e.text for e in events if isinstance(e, kind)) for kind in (Thought, Text))
    return thought, text, [(e.name, json.loads(e.arguments)) for e in events if isinstance(e, Call)]


def end_of(events: Sequence[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


# ---- events


def test_a_thought_and_an_answer() -> None:
    rendered = asked(WORLD, think="on")
    said = ">\nHm, 2 + 2.\n</think>\nFour is it.\n\nUser: and"
    events = answered(rendered, WORLD, WORLD.encode(said))
    assert told(events) == ("Hm, 2 + 2.", "Four is it.", [])
    end = end_of(events)
    num_reasoning = len(WORLD.encode(">\nHm, 2 + 2.\n</think>\n"))
    num_tokens = len(WORLD.encode(said.removesuffix(" and")))
    assert end == Finished("stop", len(rendered.tokens), 3, num_tokens, num_reasoning)
    # They come as they are made, not at the end.
    assert len(events) > 8


def test_a_thought_that_is_never_over() -> None:
    events = answered(asked(BYTES, think="on", max_tokens=6), BYTES, BYTES.encode(">\nSo ab"))
    assert told(events) == ("So a", "", []) and end_of(events).reason == "length"
    assert end_of(events).num_tokens == end_of(events).num_reasoning == 6


def test_no_tokens_are_of_a_thought_where_there_is_none() -> None:
    for think, said in [("fast", ">\nFour"), ("off", " Four")]:
        events = answered(asked(WORLD, think=think), WORLD, [*WORLD.encode(said), 0])
        assert told(events) == ("", "Four", [])
        assert end_of(events).num_reasoning == 0 and end_of(events).reason == "stop"


@pytest.mark.parametrize("reason", ["cancelled", "deadline", "length", "error"])
def test_answers_that_are_cut_off_tell_what_they_held_back(reason: EndReason) -> None:
    events = answered(asked(BYTES), BYTES, BYTES.encode(" a\n\nUse"), reason, error="broken" * (reason == "error"))
    assert told(events)[1] == "a\n\nUse" and end_of(events).reason == "length"
    assert end_of(events).error == ("broken" if reason == "error" else "")


def test_a_text_that_goes_on_is_left_as_it_is() -> None:
    said = " <think>a</think> b\n\nUser: ```json {}"
    events = answered(asked_text(BYTES), BYTES, [*BYTES.encode(said), 0])
    assert told(events) == ("", said, [])
    stopped = answered(asked_text(BYTES, stop=["er:", "x"]), BYTES, BYTES.encode(said))
    assert told(stopped) == ("", said[: said.index("er:")], [])


CALLS: dict[str, tuple[str, str, list[tuple[str, Any]]]] = {
    "a call": (CALL, "", [("add", {"a": 1, "b": "```"})]),
    "text before": (f"I add.\n{CALL}", "I add.\n", [("add", {"a": 1, "b": "```"})]),
    "text behind": (f"{CALL}\nThat gives 5.", "", [("add", {"a": 1, "b": "```"})]),
    "two": (f"{CALL}\n{CALL}", "", [("add", {"a": 1, "b": "```"})] * 2),
    "bare": ('{"name": "add", "arguments": {}}', "", [("add", {})]),
    "no call": ('See:\n```json\n{"a": 1}\n```\nwell', 'See:\n```json\n{"a": 1}\n```\nwell', []),
    "no call, then a call": (
        f'```json\n{{"a": 1}}\n```\n{CALL}',
        '```json\n{"a": 1}\n```\n',
        [("add", {"a": 1, "b": "```"})],
    ),
    "broken": ('```json\n{"name": "add", "arg', '```json\n{"name": "add", "arg', []),
    "one of them broken": (f"{CALL}\n```json\n{{{{}}\n```", f"{CALL}\n```json\n{{{{}}\n```", []),
    "other code": ("```python\nf()\n```", "```python\nf()\n```", []),
    "the beginning of a fence": ("Well ```js", "Well ```js", []),
    "a list in brackets": ("[1] says so", "[1] says so", []),
}


@pytest.mark.parametrize("tokenizer", [BYTES, WORLD], ids=lambda tokenizer: tokenizer.name)
@pytest.mark.parametrize("case", CALLS)
def test_calls_and_the_text_around_them(case: str, tokenizer: Tokenizer) -> None:
    said, text, calls = CALLS[case]
    events = answered(asked(tokenizer, tools=[ADD]), tokenizer, [*tokenizer.encode(" " + said), 0])
    assert told(events) == ("", text, calls)
    assert end_of(events).reason == ("tool_calls" if calls else "stop")
    ids = [event.id for event in events if isinstance(event, Call)]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("call_[0-9a-f]{24}", id) for id in ids)
    assert [event.index for event in events if isinstance(event, Call)] == list(range(len(calls)))


def test_a_call_that_the_prompt_began() -> None:
    rendered = asked(BYTES, tools=[ADD], tool_choice="required")
    events = answered(rendered, BYTES, [*BYTES.encode(CALL.removeprefix("```json")), 0])
    assert told(events) == ("", "", [("add", {"a": 1, "b": "```"})])


def test_the_heading_of_a_call_is_no_text() -> None:
    said = f">I add.\n**Tool Call:**\n{CALL}"
    events = answered(asked(BYTES, "markdown", tools=[ADD], think="fast"), BYTES, [*BYTES.encode(said), 0])
    assert told(events) == ("", "I add.\n", [("add", {"a": 1, "b": "```"})])


def test_without_tools_a_call_is_text() -> None:
    events = answered(asked(BYTES), BYTES, [*BYTES.encode(" " + CALL), 0])
    assert told(events) == ("", CALL, []) and end_of(events).reason == "stop"


def test_text_does_not_wait_for_a_call() -> None:
    listener_events: list[Event] = []
    listener = AnswerListener(asked(BYTES, tools=[ADD]), BYTES, listener_events.append)
    shown = []
    for token in BYTES.encode(' Hm ```json\n{"a": 1}\n```!'):
        listener.chosen(Chosen(token))
        shown.append(told(listener_events)[1])
    assert shown[:5] == ["", "H", "Hm", "Hm ", "Hm "]
    assert shown[-2:] == ['Hm ```json\n{"a": 1}\n```', 'Hm ```json\n{"a": 1}\n```!'] and set(shown[4:-2]) == {"Hm "}


PARTS = (
    *(" ", "\n", "a", "é", "你好", "🙂", "<think>", "</think>", "</th", "```", "```json\n", "{", "}", "[", '"', CALL),
    *('```json\n{"a":1}\n```', "\n\nUser:", "\nUse", "**Tool Call:**", "\n\n", ">", "**Tool", "Well. "),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join),
    st.sampled_from([{}, {"tools": [ADD]}]),
    st.sampled_from([("g1", "off"), ("g1", "fast"), ("g1", "on"), ("markdown", "on")]),
    st.integers(1, 5),
)
@example(f">{CALL}", {"tools": [ADD]}, ("g1", "fast"), 3)
def test_whatever_the_cuts_are_the_whole_is_the_same(
    said: str, tools: dict[str, Any], mode: tuple[str, str], size: int
) -> None:
    """And it is what the whole text means."""
    template, think = mode
    rendered = asked(BYTES, template, think=think, **tools)
    events = answered(rendered, BYTES, [*BYTES.encode(said), 0])
    for tokenizer in (WORLD, _Cut(size)):
        again = answered(asked(tokenizer, template, think=think, **tools), tokenizer, [*tokenizer.encode(said), 0])
        assert told(again) == told(events) and end_of(again).reason == end_of(events).reason
    stops = [place for stop in rendered.stops if (place := said.find(stop)) >= 0]
    thought, answer = split_reply(said[: min(stops, default=len(said))], rendered.opening or "")
    calls = parse_tool_calls(answer) if tools else []
    assert told(events)[0].strip() == thought
    assert [(call.name, call.arguments) for call in calls] == told(events)[2]
    if not calls:
        assert told(events)[1].strip() == answer
    else:
        assert answer.startswith(told(events)[1].strip())


class _Cut(Tokenizer):
    """A tokenizer that cuts a text into pieces of so many bytes, whatever stands there."""

    name, end_of_text = "cut", 0

    def __init__(self, size: int) -> None:
        self._size, self._table, self.vocab_size = size, [b""], 1 << 20

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        start = len(self._table)
        self._table += [data[place : place + self._size] for place in range(0, len(data), self._size)]  # type: ignore[operator]
        return list(range(start, len(self._table)))

    def _settled(self, text: str) -> tuple[list[int], str]:
        return self.encode(text), ""


# ---- logprobs


def chances(tokenizer: Tokenizer, text: str, count: int = 1) -> list[Chosen]:
    return [
        Chosen(token, -0.5 * place, tuple((place + n + 1, -1.0 - n) for n in range(count)))
        for place, token in enumerate(tokenizer.encode(text), 1)
    ]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=20), st.sampled_from([BYTES, WORLD]))
def test_logprobs_are_of_the_tokens_that_the_text_is_written_in(said: str, tokenizer: Tokenizer) -> None:
    said = said.replace("\x00", "")
    events = answered(asked_text(tokenizer, logprobs=1, stop=["\n"]), tokenizer, [*chances(tokenizer, said), Chosen(0)])
    tokens = [token for event in events if isinstance(event, Text) for token in event.tokens]
    assert tokens == chances(tokenizer, said)[: len(tokens)]
    written = tokenizer.decode([token.token for token in tokens])
    # The last one may go on into the stop.
    assert written.startswith(told(events)[1])
    assert written.removeprefix(told(events)[1]) in ("", *("\n" + rest for rest in said.split("\n")))


def test_the_tokens_of_a_thought_have_no_logprobs() -> None:
    rendered = asked(WORLD, think="on", logprobs=True)
    events = answered(rendered, WORLD, chances(WORLD, ">\nHm.\n</think>\n\nFour is it.\n\nUser:"))
    tokens = [token.token for event in events if isinstance(event, Text) for token in event.tokens]
    assert WORLD.decode(tokens) == "Four is it."
    without = answered(asked(WORLD, think="on"), WORLD, chances(WORLD, ">\nHm.\n</think>\n\nFour"))
    assert not any(event.tokens for event in without if isinstance(event, Text))


@pytest.mark.parametrize(
    ("data", "text"), [(b"a", "a"), ("é".encode(), "é"), (b"\xc3", "\\xc3"), (b"\x9f\x99", "\\x9f\\x99"), (b"", "")]
)
def test_tokens_that_are_parts_of_characters(data: bytes, text: str) -> None:
    assert token_text(data) == text
    assert token_text(data, "bytes:") == (f"bytes:{text}" if text.startswith("\\") else text)


# ---- going on


def test_the_conversation_after_an_answer_goes_on_from_its_state() -> None:
    state: State = small()(torch.tensor([[1]]))[1]
    rules = Defaults(tokenizer=WORLD, template=TEMPLATES["g1"], vocab_size=WORLD.vocab_size)
    rendered = asked(WORLD, think="on")
    tokens = WORLD.encode(">Hm.</think>\nFour. \n\nUser:")
    events = answered(rendered, WORLD, tokens, state=state)
    moment = end_of(events).moment
    assert moment is not None and moment.messages[-1].content == "Four." and moment.state is state
    read = len(rendered.tokens) + len(tokens) - 1
    assert moment.num_tokens == read and moment.text + ":" == rendered.text + ">Hm.</think>\nFour. \n\nUser:"
    body = {"model": "m", "messages": [{"role": "user", "content": "Sure?"}], "think": "on"}
    after = render_chat(ChatRequest.model_validate(body), rules, moment)
    assert after.start is state and WORLD.decode(after.tokens) == ": Sure?\n\nAssistant: <think"
    assert after.num_before == read and after.text == moment.text + ": Sure?\n\nAssistant: <think"


def test_the_text_after_a_continuation_goes_on() -> None:
    state: State = small()(torch.tensor([[1]]))[1]
    moment = end_of(answered(asked_text(BYTES, max_tokens=2), BYTES, BYTES.encode(" upon"), state=state)).moment
    assert moment is not None and moment.messages == () and moment.num_tokens == 6
    assert moment.text == "Once u" and moment.unread == "u"


# ---- responses

HEAD = Head.of("chatcmpl", "m", "fp_1")


def as_json(body: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body.model_dump_json(exclude_unset=True))
    return found


def taken(kind: Any, body: Any) -> Any:
    """The body as OpenAI's type, which must know every field of it but those that only this server has."""
    found = kind.model_validate(as_json(body), strict=True)
    unknown = set(_unknown(found))
    assert unknown <= {"reasoning_content"}, unknown
    return found


def _unknown(value: Any) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _unknown(item)
    elif hasattr(value, "model_extra"):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name))


def test_a_chat_completion() -> None:
    rendered = asked(WORLD, think="on", logprobs=True, top_logprobs=2)
    said = chances(WORLD, ">Hm.</think>Four 🙂\n\nUser:", count=2)
    answers = [answered(rendered, WORLD, said), answered(rendered, WORLD, said[:6], "length")]
    body = ChatBodies(head=HEAD, tokenizer=WORLD, logprobs=True, n=2).whole(answers)
    response = taken(OpenAIChat, body)
    first, second = response.choices
    assert re.fullmatch("chatcmpl-[0-9a-f]{24}", response.id) and response.object == "chat.completion"
    assert (response.model, response.system_fingerprint) == ("m", "fp_1")
    assert first.message.content == "Four 🙂" and first.message.reasoning_content == "Hm."
    assert (first.index, first.finish_reason, second.index, second.finish_reason) == (0, "stop", 1, "length")
    assert b"".join(bytes(one.bytes) for one in first.logprobs.content).decode() == "Four 🙂"
    assert all(len(one.top_logprobs) == 2 for one in first.logprobs.content)
    usage, end, cut = response.usage, end_of(answers[0]), end_of(answers[1])
    assert usage.prompt_tokens == len(rendered.tokens) and usage.completion_tokens == end.num_tokens + cut.num_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == 3
    assert usage.completion_tokens_details.reasoning_tokens == end.num_reasoning + cut.num_reasoning


def test_a_chat_completion_with_calls() -> None:
    events = answered(asked(BYTES, tools=[ADD]), BYTES, [*BYTES.encode(" " + CALL), 0])
    [choice] = taken(OpenAIChat, ChatBodies(head=HEAD, tokenizer=BYTES).whole([events])).choices
    assert choice.message.content is None and choice.finish_reason == "tool_calls" and choice.logprobs is None
    [call] = choice.message.tool_calls
    assert call.function.name == "add" and json.loads(call.function.arguments) == {"a": 1, "b": "```"}
    # It is taken back as a part of the next request.
    message = as_json(ChatBodies(head=HEAD, tokenizer=BYTES).whole([events]))["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    assert ChatRequest.model_validate({"model": "m", "messages": [message, result]})


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_of_chunks_is_the_whole(include_usage: bool) -> None:
    rendered = asked(WORLD, tools=[ADD], think="on", logprobs=True)
    events = answered(rendered, WORLD, [*chances(WORLD, f">Hm.</think>Well, I add.\n{CALL}"), Chosen(0)])
    bodies = ChatBodies(head=HEAD, tokenizer=WORLD, logprobs=True, include_usage=include_usage)
    sent = [bodies.first(0), *(bodies.chunk(0, event) for event in events)]
    chunks = [taken(OpenAIChunk, body) for body in sent]
    assert chunks[0].choices[0].delta.role == "assistant" and {chunk.id for chunk in chunks} == {HEAD.id}
    deltas = [chunk.choices[0].delta for chunk in chunks]
    whole = taken(OpenAIChat, bodies.whole([events])).choices[0]
    assert "".join(delta.content or "" for delta in deltas) == whole.message.content == "Well, I add.\n"
    thought = "".join(getattr(delta, "reasoning_content", "") for delta in deltas)
    assert thought == whole.message.reasoning_content == "Hm."
    [call] = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (call.index, call.type) == (0, "function")
    assert call.function.arguments == whole.message.tool_calls[0].function.arguments
    logprobs = [one for chunk in chunks if (told := chunk.choices[0].logprobs) for one in told.content]
    assert logprobs == whole.logprobs.content and len(logprobs) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["tool_calls"]
    assert all(("usage" in as_json(body)) == include_usage for body in sent)
    last = taken(OpenAIChunk, bodies.last([end_of(events)]))
    assert last.choices == [] and last.usage.completion_tokens == end_of(events).num_tokens


def test_a_completion_of_several_prompts() -> None:
    rendered = asked_text(WORLD, echo=True)
    answers = [answered(rendered, WORLD, [*WORLD.encode(f" {n}"), 0]) for n in range(4)]
    bodies = TextBodies(head=Head.of("cmpl", "m", "fp_1"), tokenizer=WORLD, n=2, echoes=["a", "a", "b", "b"])
    response = taken(OpenAICompletion, bodies.whole(answers))
    assert [choice.text for choice in response.choices] == ["a 0", "a 1", "b 2", "b 3"]
    assert response.usage.prompt_tokens == 2 * len(rendered.tokens) and response.usage.completion_tokens == 8
    assert all(choice.logprobs is None and choice.finish_reason == "stop" for choice in response.choices)
    echo = bodies.first(2)
    assert echo is not None and echo.choices[0].text == "b"
    assert TextBodies(head=HEAD, tokenizer=WORLD).first(0) is None


def test_the_logprobs_of_a_completion() -> None:
    events = answered(asked_text(BYTES, logprobs=2), BYTES, [*chances(BYTES, "aé", count=2), Chosen(0)])
    bodies = TextBodies(head=HEAD, tokenizer=BYTES, logprobs=True)
    [choice] = taken(OpenAICompletion, bodies.whole([events])).choices
    assert choice.logprobs.tokens == ["a", "bytes:\\xc3", "bytes:\\xa9"]
    assert choice.logprobs.token_logprobs == [-0.5, -1.0, -1.5] and choice.logprobs.text_offset == [0, 1, 1]
    assert choice.logprobs.top_logprobs[0] == {"\x02": -1.0, "\x03": -2.0, "a": -0.5}
    streaming = TextBodies(head=HEAD, tokenizer=BYTES, logprobs=True, include_usage=True)
    chunks = [as_json(streaming.chunk(0, event)) for event in events]
    told_of = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [place for one in told_of for place in one["text_offset"]] == [0, 1, 1]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    last = taken(OpenAICompletion, streaming.last([end_of(events)]))
    assert last.choices == [] and last.usage.total_tokens == 5 + 4


def test_an_impossible_token_is_written_as_a_number() -> None:
    chosen = Chosen(97, float("-inf"), ((98, float("-inf")),))
    events = answered(asked_text(BYTES, logprobs=1), BYTES, [chosen])
    [choice] = as_json(TextBodies(head=HEAD, tokenizer=BYTES, logprobs=True).whole([events]))["choices"]
    assert choice["logprobs"]["token_logprobs"] == [-9999.0]


def test_models_and_errors() -> None:
    about = ModelAbout(
        version="7",
        num_layers=2,
        dim=64,
        vocab_size=256,
        template="g1",
        think_modes=["off"],
        default_think="off",
        sampling={"temperature": 1.0},
        adapters=[],
        states=[],
    )
    model = Model(id="m", object="model", created=0, owned_by="receptance", receptance=about)
    assert OpenAIModel.model_validate(as_json(ModelList(object="list", data=[model]))["data"][0], strict=True).id == "m"
    error = ErrorBody(error=Error(message="no", type="invalid_request_error", param=None, code=None))
    assert ErrorObject.model_validate(as_json(error)["error"], strict=True).param is None
