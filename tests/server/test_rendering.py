"""From requests to prompts: texts, tokens, the places that prompts share, and how an answer is chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receptance.errors import InputError
from receptance.generation import PRESETS, Moment, Sampling
from receptance.server.grammars import Budget
from receptance.server.marks import NEAREST, common_length
from receptance.server.rendering import Defaults, Rendered, render_chat, render_prompts
from receptance.server.schemas import ChatRequest, CompletionRequest
from receptance.state import State
from receptance.templates import TEMPLATES, JinjaTemplate, Template, parse_tool_calls
from receptance.tokenizers import ByteTokenizer, PileTokenizer, Tokenizer, WorldTokenizer

from ..generation.models import small
from ..tokenizers.small_pile import write

BYTES, WORLD = ByteTokenizer(), WorldTokenizer()
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
USER = {"role": "user", "content": "Hello"}


def defaults(template: str | Template = "g1", tokenizer: Tokenizer = BYTES, **given: Any) -> Defaults:
    known = TEMPLATES[template] if isinstance(template, str) else template
    return Defaults(tokenizer=tokenizer, template=known, vocab_size=tokenizer.vocab_size, **given)


def chat(rules: Defaults, *messages: Any, before: Moment | None = None, **fields: Any) -> Rendered:
    said = [{"role": "user", "content": one} if isinstance(one, str) else one for one in messages or ("Hello",)]
    request = ChatRequest.model_validate({"model": "m", "messages": said, **fields})
    return render_chat(request, rules, before)


def texts(rules: Defaults, prompt: Any, before: Moment | None = None, **fields: Any) -> list[Rendered]:
    request = CompletionRequest.model_validate({"model": "m", "prompt": prompt, **fields})
    return render_prompts(request, rules, before)


@pytest.fixture(scope="module")
def state() -> State:
    model = small()
    found: State = model(torch.tensor([[1, 2, 3]]))[1]
    return found


# ---- what is read


def test_a_conversation_is_the_templates_text() -> None:
    system = {"role": "developer", "content": "Be brief."}
    rendered = chat(defaults(tokenizer=WORLD), system, "Hello", think="fast")
    assert rendered.text == "System: Be brief.\n\nUser: Hello\n\nAssistant: <think>\n</think"
    assert rendered.tokens == [0, *WORLD.encode(rendered.text)]
    assert rendered.opening == " <think>\n</think" and rendered.think == "fast"
    assert rendered.stops == TEMPLATES["g1"].stops and not rendered.has_tools


def test_what_holds_where_a_request_says_nothing() -> None:
    rendered = chat(defaults("flower"))
    assert rendered.think == "fast" and rendered.sampling == PRESETS["g1-fast"] and rendered.max_tokens == 2048
    assert chat(defaults("flower"), think="on").sampling == PRESETS["g1-think"]
    assert chat(defaults("flower", think="some")).think == "some"
    usual = Sampling(temperature=0.3)
    assert chat(defaults("flower", sampling=usual)).sampling == usual
    [text] = texts(defaults(), "Once")
    assert text.sampling == PRESETS["official"] and text.max_tokens == 256 and text.stops == ()


def test_a_request_changes_the_sampling() -> None:
    changed = {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "penalty_decay": 0.9, "order": "usual", "seed": 7}
    rendered = chat(defaults(), logit_bias={"12": -1.5}, **changed)
    assert rendered.sampling == replace(PRESETS["g1-fast"], **changed, logit_bias={12: -1.5})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="logit_bias names token 256, and the vocabulary ends at 255"):
        chat(defaults(), logit_bias={"256": 1})


@pytest.mark.parametrize(
    ("template", "modes"),
    [
        ("g1", ["off", "fast", "a bit", "some", "a lot", "a lot"]),
        ("markdown", ["off", "fast", "on", "on", "on", "on"]),
        ("world", ["off"] * 6),
    ],
)
def test_efforts_are_the_nearest_think_modes(template: str, modes: list[str]) -> None:
    efforts = ["none", "minimal", "low", "medium", "high", "max"]
    assert [chat(defaults(template), reasoning_effort=effort).think for effort in efforts] == modes


def test_a_think_mode_that_there_is_not() -> None:
    with pytest.raises(InputError, match="no think mode 'deep'; choose one of: off, fast, on, a bit, some, a lot"):
        chat(defaults(), think="deep")


def test_budgets_are_for_thoughts_that_are_open() -> None:
    assert chat(defaults(), think="on", think_budget=5).budget == Budget(5, half_open=True)
    assert chat(defaults(), think="fast", think_budget=5).budget is None
    assert chat(defaults(), think="on").budget is None


def test_a_whole_mark_of_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text('{% for m in messages %}{{ m.content }}\n{% endfor %}{{ "<think>" if think != "off" }}')
    rendered = chat(defaults(JinjaTemplate(path)), think="on", think_budget=5)
    assert rendered.opening == "<think>" and rendered.budget == Budget(5, half_open=False)


def test_the_limits_of_a_server() -> None:
    rules = defaults(most_prompt_tokens=100, most_new_tokens=50)
    assert chat(rules).max_tokens == 50 and chat(rules, max_tokens=50, max_completion_tokens=10).max_tokens == 10
    with pytest.raises(InputError, match="max_tokens is 51 and this server gives at most 50; ask for fewer"):
        chat(rules, max_tokens=51)
    with pytest.raises(InputError, match="the prompt has 1,019 tokens and this server reads at most 100; shorten it"):
        chat(rules, "x" * 1000)
    with pytest.raises(InputError, match="this server reads at most 100"):
        texts(rules, "x" * 101)


def test_prompts_as_texts_and_as_tokens() -> None:
    one, other = texts(defaults(), ["ab", "c"], echo=True, stop="x", max_tokens=3)
    assert (one.text, one.tokens, one.echo) == ("ab", [0, 97, 98], "ab")
    assert (other.tokens, other.stops, other.max_tokens, other.opening) == ([0, 99], ("x",), 3, None)
    [ids] = texts(defaults(), [97, 98])
    assert (ids.text, ids.tokens, ids.echo) == ("ab", [97, 98], "")
    [nothing] = texts(defaults(), None)
    assert nothing.tokens == [0]
    with pytest.raises(InputError, match="the prompt has token 300, and the vocabulary ends at 255; name another"):
        texts(defaults(), [300])


def test_logprobs() -> None:
    assert [chat(defaults(), **asked).num_logprobs for asked in [{}, {"logprobs": True}]] == [None, 0]
    assert chat(defaults(), logprobs=True, top_logprobs=3).num_logprobs == 3
    assert [texts(defaults(), "a", logprobs=asked)[0].num_logprobs for asked in (None, 0, 2)] == [None, 0, 2]


# ---- tools


def test_tools_are_described_and_calls_are_written_as_the_template_does() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    rendered = chat(
        defaults("flower"),
        "1?",
        {"role": "assistant", "content": "I add.", "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        tools=[ADD],
    )
    written = '```json\n{"name":"add","arguments":{"a":1}}\n```'
    assert rendered.template == TEMPLATES["g1"] and rendered.has_tools
    assert rendered.text == (
        "System: Tools:\n- add(a?: integer)\nReturn only a JSON function call.\n\nUser: 1?\n\n"
        f"Assistant: I add.\n{written}\n{written}\n\nUser: Function output:\n2\n\nAssistant:"
    )


@pytest.mark.parametrize("template", ["g1", "markdown"])
def test_calls_of_earlier_answers_are_read_back_as_they_were(template: str) -> None:
    arguments = {"a": 1, "b": ["x", {"c": "```"}]}
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": json.dumps(arguments)}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    rendered = chat(defaults(template), "1?", said, {"role": "tool", "tool_call_id": "c", "content": "2"})
    [found] = parse_tool_calls(rendered.messages[1].content)
    assert (found.name, found.arguments) == ("add", arguments)
    assert rendered.messages[1].content in rendered.text


def test_no_tools_are_told_of_where_none_may_be_called() -> None:
    rendered = chat(defaults(), tools=[ADD], tool_choice="none")
    assert rendered.text == chat(defaults()).text and not rendered.has_tools and rendered.grammar is None


def test_a_call_that_is_asked_for_begins_the_answer() -> None:
    free, forced = (chat(defaults(), tools=[ADD], tool_choice=choice) for choice in ("auto", "required"))
    assert free.opening == "" and free.grammar is None and free.stops == TEMPLATES["g1"].stops
    assert forced.opening == " ```json" and forced.text == free.text + " ```json"
    assert forced.grammar is not None and forced.stops == ()
    [form] = forced.grammar.forms
    assert form.before == '\n{"name":"add","arguments":' and form.after == "}\n```"
    assert json.loads(form.text) == ADD["function"]["parameters"]  # type: ignore[index]


def test_the_one_call_that_is_asked_for() -> None:
    other = {"type": "function", "function": {"name": "now"}}
    choice = {"type": "function", "function": {"name": "now"}}
    rendered = chat(defaults("markdown"), tools=[ADD, other], tool_choice=choice, think="on")
    assert rendered.opening == "<think" and rendered.grammar is not None
    [form] = rendered.grammar.forms
    assert form.before.startswith('**Tool Call:**\n```json\n{\n  "name": "now"')
    assert json.loads(form.text) == {"type": "object", "properties": {}, "additionalProperties": False}


def test_tools_where_a_family_never_saw_any() -> None:
    with pytest.raises(InputError, match="the template world has no form for tools; leave them out"):
        chat(defaults("world"), tools=[ADD])


def test_arguments_that_are_none() -> None:
    for arguments in ("[1]", "{", "[" * 100_000):
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
        with pytest.raises(InputError, match=r"messages\.1: the arguments of the call 'c1' are no JSON object; repeat"):
            chat(defaults(), "1?", {"role": "assistant", "content": None, "tool_calls": [call]}, "2?")


# ---- forms


def test_json_ends_by_itself_and_other_forms_by_a_stop() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array"}}}
    rendered = chat(defaults(), response_format=wanted, stop=["x"])
    assert rendered.stops == ("x",) and rendered.grammar is not None
    assert [json.loads(form.text) for form in rendered.grammar.forms] == [{"type": "array"}]
    rendered = chat(defaults(), regex="a+", stop=["x"])
    assert rendered.stops == (*TEMPLATES["g1"].stops, "x") and rendered.grammar is not None
    assert rendered.grammar.stops == rendered.stops
    [text] = texts(defaults(), "a", grammar="start: /a/")
    assert text.grammar is not None and text.grammar.opening is None
    assert chat(defaults(), response_format={"type": "text"}).grammar is None


def test_the_end_of_the_text_is_not_banned_where_nothing_else_may_be_left() -> None:
    assert chat(defaults("world")).sampling.banned == (0,)
    assert chat(defaults("world"), response_format={"type": "json_object"}).sampling.banned == ()


def test_a_call_in_place_of_the_form_that_is_asked_for() -> None:
    rendered = chat(defaults(), tools=[ADD], response_format={"type": "json_object"})
    assert rendered.grammar is not None and len(rendered.grammar.forms) == 2


# ---- going on


def test_a_stored_conversation_goes_on_from_its_state(state: State) -> None:
    rules = defaults(tokenizer=WORLD)
    first = chat(rules, "Hello")
    moment = Moment(first.messages, first.text, "", state, 10)
    second = chat(rules, "And now?", before=replace(moment, text=first.text + " Hi.\n\nUser", messages=(
        *first.messages, replace(first.messages[0], role="assistant", content="Hi.", raw=" Hi.")
    )))
    assert second.start is state and second.num_before == 10 and second.marks == ()
    assert second.text == "User: Hello\n\nAssistant: Hi.\n\nUser: And now?\n\nAssistant:"
    assert WORLD.decode(second.tokens) == ": And now?\n\nAssistant:"


def test_a_stored_conversation_is_read_again_where_its_text_has_changed(state: State) -> None:
    rules = defaults(tokenizer=WORLD)
    first = chat(rules, "Hello")
    moment = Moment(first.messages[:1], first.text + "?", "", state, 10)
    again = chat(rules, {"role": "assistant", "content": "Hi."}, "And now?", before=moment)
    assert again.start is None and again.tokens == [0, *WORLD.encode(again.text)] and again.num_before == 0


def test_a_text_goes_on_and_is_no_conversation(state: State) -> None:
    moment = Moment((), "Once upon", " upon", state, 5)
    [text] = texts(defaults(), " a", before=moment)
    assert text.text == "Once upon a" and BYTES.decode(text.tokens) == " upon a" and text.start is state
    [ids] = texts(defaults(), [97], before=moment)
    assert BYTES.decode(ids.tokens) == " upona"
    with pytest.raises(InputError, match="has read a text and no conversation"):
        chat(defaults(), before=moment)
    with pytest.raises(InputError, match="the prompt is empty; after a state there must be something to read"):
        texts(defaults(), "", before=replace(moment, unread=""))


def test_an_uploaded_state_comes_before_everything(state: State) -> None:
    rendered = chat(defaults(), before=Moment(state=state))
    assert rendered.start is state and BYTES.decode(rendered.tokens) == rendered.text == "User: Hello\n\nAssistant:"


# ---- marks

words = st.text(st.sampled_from("ab .?!\n\"<>é你🙂✿:"), min_size=1, max_size=60).filter(str.strip)
conversations = st.lists(words, min_size=1, max_size=9).filter(lambda said: len(said) % 2 == 1)
modes = st.sampled_from([("g1", "off"), ("g1", "fast"), ("g1", "a lot"), ("flower", "on"), ("flower", "some")])


def as_turns(said: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(said)]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(conversations, modes, st.sampled_from([BYTES, WORLD]), st.sampled_from(["", "Be brief. " * 5]))
@example(["a" * 40, "b" * 40, "c" * 40], ("g1", "off"), WORLD, "")
def test_a_longer_conversation_has_the_marks_of_the_shorter_ones(
    said: list[str], mode: tuple[str, str], tokenizer: Tokenizer, system: str
) -> None:
    """And up to each of them the same tokens."""
    rules = defaults(mode[0], tokenizer)
    turns = [*([{"role": "system", "content": system}] if system else []), *as_turns(said)]
    ends = range(len(turns) - len(said) + 1, len(turns) + 1, 2)
    for earlier, later in pairwise(chat(rules, *turns[:end], think=mode[1]) for end in ends):
        assert later.marks[: len(earlier.marks)] == earlier.marks
        if earlier.marks:
            assert later.tokens[: earlier.marks[-1]] == earlier.tokens[: earlier.marks[-1]]


def test_where_the_marks_are() -> None:
    system = {"role": "system", "content": "You are a helpful assistant."}
    turns = ["What is a recurrent network?", "A network with a state.", "And what is a state of one, then?"]
    rendered = chat(defaults(tokenizer=WORLD), system, *as_turns(turns))
    beginnings = [WORLD.decode(rendered.tokens[:mark]) for mark in rendered.marks]
    whole = rendered.text
    assert [len(text) for text in beginnings] == [whole.index(" A network"), len(whole)]


def test_the_place_before_an_opening_is_a_mark() -> None:
    rendered = chat(defaults(tokenizer=WORLD), "word " * 50, think="on")
    assert WORLD.decode(rendered.tokens[: rendered.marks[-1]]) == rendered.text.removesuffix(" <think")
    # What the mode adds to the question is not repeated by later prompts.
    rendered = chat(defaults(tokenizer=WORLD), {"role": "system", "content": "word " * 50}, "Why?", think="a lot")
    assert WORLD.decode(rendered.tokens[: rendered.marks[-1]]).endswith("\n\nUser:")


def test_marks_are_far_apart_in_long_conversations() -> None:
    rendered = chat(defaults(tokenizer=WORLD), *as_turns(["word " * 5] * 999))
    gaps = [after - before for before, after in pairwise((0, *rendered.marks))]
    assert min(gaps) >= NEAREST and len(rendered.marks) < 90
    assert all(gap >= mark / 16 for gap, mark in zip(gaps, rendered.marks, strict=True))
    assert max(gap / mark for gap, mark in zip(gaps[30:], rendered.marks[30:], strict=True)) < 1 / 12


def test_no_marks_without_a_cache_or_where_tokens_do_not_write_the_text(tmp_path: Path) -> None:
    assert chat(defaults(), "x" * 100).marks != ()
    assert chat(defaults(), "x" * 100, cache=False).marks == ()
    pile = PileTokenizer(write(tmp_path / "tokenizer.json"))
    assert chat(defaults(tokenizer=pile), "x" * 100).marks != ()
    # The tokenizer composes the letters, so that places in the text are not those in the tokens.
    assert chat(defaults(tokenizer=pile), "e\u0301" * 100).marks == ()
    assert chat(defaults(), "\x00" * 100).marks == () and chat(defaults(), "\ue000" * 100).marks == ()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text("ab", max_size=20), st.text("ab", max_size=20))
def test_common_length(one: str, other: str) -> None:
    length = common_length(one, other)
    assert (one[:length] == other[:length] and one[length : length + 1] != other[length : length + 1]) or one == other
