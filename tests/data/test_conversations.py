"""Conversations in the form of a template, of which only the assistant's words are learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from receptance.data import Tokens, conversations, prepare
from receptance.data.sources import Bad
from receptance.errors import DataError
from receptance.templates import TEMPLATES, Message, open_template

from ..conftest import ROOT

TWO_TURNS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes.\n\nIndeed."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "No."},
    ]
}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answers(path: Path, template: str = "g1", **options: Any) -> list[list[str]]:
    found = conversations(path, open_template(template), **options)
    return [[document.text[a:b] for a, b in document.learnt or ()] for document in found]


ENDS = {"world": "\n\n", "raven": "\n\n", "g1": "\n\n", "flower": "✿", "markdown": "\n"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_learnt_with_what_ends_them(name: str, tmp_path: Path) -> None:
    (first, second), *rest = answers(write(tmp_path / "x.jsonl", TWO_TURNS), name)
    # A blank line ends a turn for these, so none may stand inside of an answer.
    inner = "\n" if name in ("world", "raven") else "\n\n"
    lead = "" if name in ("flower", "markdown") else " "
    assert not rest
    assert (first.strip(" \n✿"), second.strip(" \n✿")) == (f"Yes.{inner}Indeed.", "No.")
    assert first.startswith(lead + "Yes") and first.endswith("Indeed." + ENDS[name])
    assert second.endswith("No." + ENDS[name])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_before_an_answer_is_the_prompt_that_a_model_will_see(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    (document,) = conversations(write(tmp_path / "x.jsonl", TWO_TURNS), template)
    messages = [Message(m["role"], m["content"]) for m in TWO_TURNS["messages"]]
    assert document.learnt is not None and document.learnt[-1][1] == len(document.text)
    for place, (start, _) in zip((2, 4), document.learnt, strict=True):
        assert document.text[:start] == template.prompt(messages[:place])


def test_a_template_of_ones_own_will_do(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "city: Paris"}, *TWO_TURNS["messages"][1:]]}
    template = ROOT / "examples" / "own_template.jinja"
    assert answers(write(tmp_path / "x.jsonl", own), str(template)) == [[" Yes.\n\nIndeed.\n\n", " No.\n\n"]]


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Yes."}]},
        {"prompt": "One?", "completion": "Yes."},
        {"instruction": "One?", "input": "", "output": "Yes."},
        {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Yes."}], "id": 3},
    ],
    ids=lambda record: next(iter(record)),
)
def test_every_common_form_is_read(record: Any, tmp_path: Path) -> None:
    (document,) = conversations(write(tmp_path / "x.jsonl", record), TEMPLATES["g1"])
    assert document.text == "User: One?\n\nAssistant: Yes.\n\n"


BAD = {
    "no conversation": ({"text": "One?"}, "this is no conversation; one has messages"),
    "a text": ("One?", "this is no conversation"),
    "no list": ({"messages": "One?"}, "'messages' is no list of messages"),
    "an unknown role": ({"messages": [{"role": "narrator", "content": "It rained."}]}, "the role 'narrator'"),
    "no text": ({"messages": [{"role": "user", "content": None}]}, "a message of the user has no text"),
    "no answer": ({"messages": [{"role": "user", "content": "One?"}]}, "the assistant says nothing"),
    "an empty answer": ({"prompt": "One?", "completion": "  "}, "the assistant says nothing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_conversation_is_told_with_its_line(kind: str, tmp_path: Path) -> None:
    record, words = BAD[kind]
    path = write(tmp_path / "x.jsonl", TWO_TURNS, record, TWO_TURNS)
    with pytest.raises(DataError, match=f"line 2: .*{words}"):
        answers(path)
    bad: list[Bad] = []
    assert len(answers(path, on_bad=bad.append)) == 2 and [b.place for b in bad] == [f"{path}, line 2"]


def test_a_role_that_the_template_lacks_is_told(tmp_path: Path) -> None:
    record = {"messages": [{"role": "tool", "content": "4"}, *TWO_TURNS["messages"][1:]]}
    with pytest.raises(DataError, match="line 1: the template raven has no form for tools"):
        answers(write(tmp_path / "x.jsonl", record), "raven")


def test_what_is_learnt_is_kept_beside_the_tokens(tmp_path: Path) -> None:
    talks = conversations(write(tmp_path / "x.jsonl", TWO_TURNS), TEMPLATES["g1"])
    prepare(talks, "bytes", tmp_path / "x", processes=1)
    tokens = Tokens.open(tmp_path / "x")
    flags = tokens.counted(0, tokens.num_tokens)
    text = tokens.window(0, tokens.num_tokens)
    assert bytes(np.where(flags, text, 95).tolist()).strip(b"_") == b" Yes.\n\nIndeed.\n\n" + b"_" * 22 + b" No.\n\n\0"
