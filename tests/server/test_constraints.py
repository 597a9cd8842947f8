"""What may come next: grammars, the end of a thought, and both together."""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from receptance.engine.request import Constraint
from receptance.errors import InputError
from receptance.server.constraints import Constraints
from receptance.server.forms import answer_grammar
from receptance.server.grammars import Budget, Form, Grammar, opens_thought
from receptance.server.schemas import ChatRequest
from receptance.templates import TEMPLATES, parse_tool_calls, split_reply
from receptance.tokenizers import ByteTokenizer, PileTokenizer, Tokenizer, WorldTokenizer

from ..tokenizers.small_pile import write

BYTES, WORLD = ByteTokenizer(), WorldTokenizer()
END = 0
Kit = tuple[Tokenizer, Constraints]


@pytest.fixture(scope="module", params=["bytes", "world", "pile"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A tokenizer, and the constraints for a model of its size; the Pile's models have more ids than it."""
    if request.param == "pile":
        tokenizer: Tokenizer = PileTokenizer(write(tmp_path_factory.mktemp("pile") / "tokenizer.json"))
        return tokenizer, Constraints(tokenizer, 384)
    tokenizer = BYTES if request.param == "bytes" else WORLD
    return tokenizer, Constraints(tokenizer, tokenizer.vocab_size)


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return Constraints(BYTES, 256)


def allowed(constraint: Constraint) -> list[int]:
    found: list[int] = constraint.allowed().numpy().nonzero()[0].tolist()
    return found


def made(constraint: Constraint | None) -> Constraint:
    assert constraint is not None
    return constraint


def walk(constraint: Constraint, tokenizer: Tokenizer, noise: random.Random, most: int = 2000) -> str:
    """What comes of choosing blindly until the text may end: for a model that has read nothing."""
    tokens: list[int] = []
    # A walk that only ever opens brackets would have no end, so tokens that close are taken oftener.
    closing = [token for letter in '}]"<>' for token in tokenizer.encode(letter)]
    while len(tokens) < most:
        mask = constraint.allowed().numpy()
        if mask[END]:
            return tokenizer.decode(tokens)
        [choices] = mask.nonzero()
        near = [token for token in closing if mask[token]]
        token = noise.choice(near) if near and noise.random() < 0.5 else int(choices[noise.randrange(len(choices))])
        assert tokenizer.token_bytes(token), "an id that stands for nothing"
        constraint.push(token)
        tokens.append(token)
    raise AssertionError(f"no end after {most} tokens: {tokenizer.decode(tokens)[-200:]}")


def follow(constraint: Constraint, tokenizer: Tokenizer, text: str) -> str:
    """As much of a text as may come."""
    said = []
    for token in tokenizer.encode(text):
        if token not in allowed(constraint):
            break
        constraint.push(token)
        said.append(token)
    return tokenizer.decode(said)


# ---- JSON

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", 3]}, "maxItems": 3},
        "home": {"$ref": "#/$defs/home"},
    },
    "required": ["name", "age", "home"],
    "additionalProperties": False,
    "$defs": {
        "home": {
            "type": "object",
            "properties": {"lat": {"type": "number"}},
            "required": ["lat"],
            "additionalProperties": False,
        }
    },
}


def is_person(value: Any) -> bool:
    home, tags = value["home"], value.get("tags", [])
    return (
        {"name", "age", "home"} <= value.keys() <= {"name", "age", "home", "tags"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 20
        and isinstance(value["age"], int)
        and 0 <= value["age"] <= 150
        and home.keys() == {"lat"}
        and isinstance(home["lat"], int | float)
        and len(tags) <= 3
        and set(tags) <= {"a", "é", 3}
    )


SCHEMAS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "person": (PERSON, is_person),
    "any object": ({"type": "object"}, lambda value: isinstance(value, dict)),
    "a list": (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5},
        lambda value: 2 <= len(value) <= 5 and all(isinstance(item, bool) for item in value),
    ),
    "a choice": ({"anyOf": [{"const": "x"}, {"type": "null"}]}, lambda value: value in ("x", None)),
    "a date": ({"type": "string", "format": "date"}, lambda value: re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_blind_walks_write_json_of_the_schema(name: str, kit: Kit) -> None:
    tokenizer, constraints = kit
    schema, holds = SCHEMAS[name]
    grammar = Grammar((Form("json", json.dumps(schema)),), opening="")
    for seed in range(20):
        said = walk(made(constraints.of(grammar)), tokenizer, random.Random(seed))
        assert holds(json.loads(said)), said


@pytest.mark.parametrize("opening", [" <think", " <think>\n</think", "<think>\n", "", "<think>\n\n</think>\n\n"])
def test_the_form_is_that_of_the_answer_after_the_thought(opening: str, kit: Kit) -> None:
    tokenizer, constraints = kit
    grammar = Grammar((Form("json", json.dumps(PERSON)),), opening)
    for seed in range(5):
        constraint = made(constraints.of(grammar))
        thought = ""
        if opens_thought(opening):
            thought = ">" * (opening == " <think") + 'So {"name": </thin and so on é🙂.\n</think>'
            assert follow(constraint, tokenizer, thought) == thought
        _, answer = split_reply(thought + walk(constraint, tokenizer, random.Random(seed)), opening)
        assert is_person(json.loads(answer)), answer


def test_a_thought_cannot_end_without_an_answer(kit: Kit) -> None:
    tokenizer, constraints = kit
    constraint = made(constraints.of(Grammar((Form("json", "{}"),), " <think")))
    follow(constraint, tokenizer, ">\nHm")
    assert END not in allowed(constraint) and len(allowed(constraint)) > 150


def test_no_white_space_without_end(kit: Kit) -> None:
    tokenizer, constraints = kit
    constraint = made(constraints.of(Grammar((Form("json", '{"type": "object"}'),), "")))
    assert follow(constraint, tokenizer, '{\n    "a": 1') == '{\n    "a": 1'
    space = {token for token in range(tokenizer.vocab_size) if tokenizer.token_bytes(token).isspace()}
    num_bytes = 0
    for _ in range(100):
        likely = [token for token in allowed(constraint) if token in space]
        if not likely:
            break
        constraint.push(likely[0])
        num_bytes += len(tokenizer.token_bytes(likely[0]))
    assert 0 < num_bytes <= 40


# ---- texts


def test_a_regular_expression_is_the_whole_answer(constraints: Constraints) -> None:
    grammar = Grammar((Form("regex", "yes|no/maybe"),), "")
    assert {walk(made(constraints.of(grammar)), BYTES, random.Random(seed)).lstrip() for seed in range(20)} == {
        *("yes", "no/maybe"),
    }


def test_a_text_that_is_continued_is_of_the_form_from_its_first_letter(constraints: Constraints) -> None:
    assert allowed(made(constraints.of(Grammar((Form("regex", "[ab]+"),))))) == [97, 98]
    assert allowed(made(constraints.of(Grammar((Form("regex", "[ab]+"),), "")))) == [10, 32, 97, 98]


def test_a_grammar_of_ones_own(constraints: Constraints) -> None:
    lark = 'start: greeting " " /[a-z]{3}/\ngreeting: "hi" | "bye"'
    for seed in range(10):
        said = walk(made(constraints.of(Grammar((Form("lark", lark),)))), BYTES, random.Random(seed))
        assert re.fullmatch("(hi|bye) [a-z]{3}", said)


def test_an_answer_of_a_form_may_end_by_a_stop(constraints: Constraints) -> None:
    constraint = made(constraints.of(Grammar((Form("regex", "[a-z]+"),), "", ("\n\nUser:", "✿", '"\x01'))))
    assert follow(constraint, BYTES, " ab") == " ab"
    assert set(allowed(constraint)) == {END, *b'abcdefghijklmnopqrstuvwxyz\n"', "✿".encode()[0]}
    assert follow(constraint, BYTES, "\n\nUser:") == "\n\nUser:" and allowed(constraint) == [END]


def test_either_of_several_forms(constraints: Constraints) -> None:
    grammar = Grammar((Form("regex", "no"), Form("json", '{"type": "object"}', "call(", ")")))
    for text in ("no", 'call({"a": [1]})'):
        constraint = made(constraints.of(grammar))
        assert follow(constraint, BYTES, text) == text and allowed(constraint) == [END]


@pytest.mark.parametrize(("template", "think"), [("g1", "off"), ("g1", "on"), ("markdown", "fast")])
def test_a_forced_call_is_one(template: str, think: str, kit: Kit) -> None:
    tokenizer, constraints = kit
    tools = [
        {"type": "function", "function": {"name": "add", "parameters": PERSON}},
        {"type": "function", "function": {"name": "now"}},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": "required"}
    opening = TEMPLATES[template].opening(think, tools)
    grammar = answer_grammar(ChatRequest.model_validate(body), TEMPLATES[template], opening)
    names = set()
    for seed in range(20):
        constraint = made(constraints.of(grammar))
        thought = follow(constraint, tokenizer, ">Hm.</think>") if think == "on" else ""
        _, answer = split_reply(thought + walk(constraint, tokenizer, random.Random(seed)), opening)
        [call] = parse_tool_calls(answer)
        names.add(call.name)
        assert is_person(call.arguments) if call.name == "add" else call.arguments == {}
    assert names == {"add", "now"}


BROKEN = {
    "regex": [Form("regex", "a("), Form("regex", "[")],
    "lark": [Form("lark", "nonsense ["), Form("lark", "start: foo"), Form("lark", "start: start")],
    "json": [
        Form("json", '{"type": "colour"}'),
        Form("json", '{"not": {}}'),
        Form("json", '{"$ref": "http://example.org/schema"}'),
        Form("json", '{"type": "string", "minLength": 3, "maxLength": 2}'),
    ],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_forms_that_are_none(kind: str, constraints: Constraints) -> None:
    for form in BROKEN[kind]:
        with pytest.raises(InputError) as raised:
            constraints.of(Grammar((form,), ""))
        said = str(raised.value)
        assert re.fullmatch(r"no answer can be given in this form \(.+\); correct or simplify it", said), said
        assert len(said) < 300


def test_a_grammar_that_grows_too_difficult_ends_the_answer(constraints: Constraints) -> None:
    constraint = made(constraints.of(Grammar((Form("lark", 'start: start start | "a"'),))))
    with pytest.raises(InputError, match="the form of the answer is too difficult to follow from here on; simplify it"):
        follow(constraint, BYTES, "a" * 1000)


def test_following_a_grammar_costs_little() -> None:
    """Well under a millisecond a token, which the step of a model takes many times over."""
    constraints = Constraints(WORLD, WORLD.vocab_size)
    constraint = made(constraints.of(Grammar((Form("json", json.dumps(PERSON)),), " <think")))
    seconds = []
    text = ">" + "A thought, é 你好.\n" * 30 + '</think>\n{"name": "Ann", "age": 12, "home": {"lat": 1.5}}'
    for token in WORLD.encode(text):
        start = time.perf_counter()
        mask = constraint.allowed()
        constraint.push(token)
        seconds.append(time.perf_counter() - start)
        assert mask[token] and mask.shape == (WORLD.vocab_size,)
    assert statistics.median(seconds) < 1e-3


def test_a_grammar_is_compiled_once_and_followed_by_each_answer_alone(constraints: Constraints) -> None:
    grammar = Grammar((Form("regex", "ab"),))
    one, other = made(constraints.of(grammar)), made(constraints.of(grammar))
    one.push(97)
    assert allowed(one) == [98] and allowed(other) == [97]


def test_nothing_is_constrained_for_nothing(constraints: Constraints) -> None:
    assert constraints.of(None) is None


# ---- budgets


def thought(kit: Kit, num_tokens: int, opening: str, text: str, grammar: Grammar | None = None) -> str:
    """What comes of an answer that would be `text`, where anything else is forced."""
    tokenizer, constraints = kit
    constraint = made(constraints.of(grammar, Budget(num_tokens, half_open=not opening.endswith(">"))))
    said, wanted = [], tokenizer.encode(text)
    for _ in range(len(wanted) + 20):
        choices = allowed(constraint)
        if wanted and wanted[0] in choices:
            token = wanted.pop(0)
        elif not wanted:
            break
        else:
            token, wanted = min(choices), wanted if len(choices) < 50 else []
        constraint.push(token)
        said.append(token)
    return tokenizer.decode(said)


def test_a_thought_is_ended_after_its_budget(kit: Kit) -> None:
    tokenizer, _ = kit
    text = ">I think and think and think."
    said = thought(kit, 5, " <think", text)
    begun = tokenizer.decode(tokenizer.encode(text)[:5])
    assert said.startswith(f"{begun}</think>") and said.endswith("and think.")
    assert split_reply(said, " <think")[0] == begun[1:].strip()


def test_a_thought_that_ends_in_time_is_left_alone(kit: Kit) -> None:
    text = ">Ok</think>Yes, and so on and so on."
    assert thought(kit, 100, " <think", text) == thought(kit, len(text), " <think", text) == text
    # What follows a thought is none, though its tokens go on being counted.
    assert thought(kit, 12, " <think", text) == text


def test_no_thought_at_all(kit: Kit) -> None:
    assert split_reply(thought(kit, 0, " <think", "Yes"), " <think")[0] == ""
    assert thought(kit, 0, " <think", "Yes").startswith("></think>")
    assert thought(kit, 0, "<think>", "Yes").startswith("</think>")


def test_a_thought_does_not_end_within_a_character() -> None:
    kit = (BYTES, Constraints(BYTES, 256))
    assert thought(kit, 3, " <think", ">🙂🙂") == ">🙂</think>🙂"


def test_a_budget_and_a_form_at_once(kit: Kit) -> None:
    tokenizer, constraints = kit
    grammar = Grammar((Form("json", json.dumps(PERSON)),), " <think")
    for seed in range(5):
        constraint = made(constraints.of(grammar, Budget(20, half_open=True)))
        said = walk(constraint, tokenizer, random.Random(seed))
        _, answer = split_reply(said, " <think")
        assert is_person(json.loads(answer)), said
        assert "</think>" in said


def test_a_written_grammar_can_be_read() -> None:
    written = json.loads(Grammar((Form("regex", "a/b"),), " <think", ("\n",)).text())
    assert written["grammars"][0]["lark_grammar"].startswith('start: ">" thought lead? ( @form0 ) stop?')
