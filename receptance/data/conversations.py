"""Conversations as documents of which the assistant's words are to be learnt.

    for document in conversations(Path("talks.jsonl"), template):
        document.text, document.learnt

A record is `{"messages": [{"role": "user", "content": "..."}, ...]}` as OpenAI writes them, `{"conversations":
[{"from": "human", "value": "..."}, ...]}` as ShareGPT does, or a pair: `{"prompt": ..., "completion": ...}`, or
`{"instruction": ..., "input": ..., "output": ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..templates import Message, Template
from .sources import Bad, Document, OnBad, records, refuse

# What other formats call the roles.
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "function": "tool"}
LISTS = {"messages": ("role", "content"), "conversations": ("from", "value")}
# Stands for an answer, and in no template.
MARK = "\u2603"
PAIRS = {"prompt": "completion", "instruction": "output"}


def conversations(source: str | Path, template: Template, on_bad: OnBad = refuse) -> Iterator[Document]:
    """The conversations of a source with records, as the template writes them.

    Raises what `documents` raises, and tells `on_bad` of records that are no conversation or that the template refuses.
    """
    for record in records(source, on_bad):
        try:
            text, learnt = rendered(messages_of(record.value), template)
        except InputError as error:
            on_bad(Bad(record.place, str(error)))
            continue
        yield Document(text, record.num_bytes, record.name, learnt)


def is_conversation(record: Any) -> bool:
    """Whether a record has the form of one."""
    return isinstance(record, Mapping) and any(name in record for name in (*LISTS, *PAIRS))


def messages_of(record: Any) -> list[Message]:
    """The messages of a record.  Raises InputError where it has none, or where one is no text of a known role."""
    if not is_conversation(record):
        raise InputError(f"this is no conversation; one has {', '.join((*LISTS, *PAIRS))}")
    found: list[Message] = []
    for name, (role, content) in LISTS.items():
        if name in record:
            turns = record[name]
            if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
                raise InputError(f"{name!r} is no list of messages")
            found = [Message(ROLES.get(str(turn.get(role)), str(turn.get(role))), turn.get(content)) for turn in turns]
    for name, answer in PAIRS.items():
        if not found and name in record:
            more = record.get("input") if name == "instruction" else None
            asked = f"{record[name]}\n{more}" if more else record[name]
            found = [Message("user", asked), Message("assistant", record.get(answer))]
    for message in found:
        if message.role not in ("system", "user", "assistant", "tool"):
            raise InputError(f"a message has the role {message.role!r}; a role is system, user, assistant or tool")
        if not isinstance(message.content, str):
            raise InputError(f"a message of the {message.role} has no text")
    if not any(message.role == "assistant" and message.content.strip() for message in found):
        raise InputError("the assistant says nothing in it")
    return found


def rendered(messages: list[Message], template: Template) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A conversation as its template writes it, up to its last answer, and where the answers stand.

    An answer ends with what ends a turn: who has learnt it knows when to stop.  What follows the last one is left out.
    Raises InputError for a template whose later prompts do not begin with the earlier ones.
    """
    text, learnt = "", []
    for place, message in enumerate(messages):
        if message.role != "assistant" or place == 0:
            continue
        before = template.prompt(messages[:place])
        after, other = (
            template.prompt([*messages[:place], said, Message("user", "?")])
            for said in (message, Message("assistant", MARK))
        )
        # What follows an answer is what follows any other.
        rest = other.rpartition(MARK)[2]
        if not (before.startswith(text) and after.startswith(before) and after.endswith(rest) and MARK in other):
            raise InputError(f"the template {template.name} does not repeat its prompts; no answer can be found in it")
        text = after[: len(after) - len(rest) + _closing(rest, template)]
        learnt.append((len(before), len(text)))
    return text, tuple(learnt)


def _closing(rest: str, template: Template) -> int:
    """How many letters of what follows an answer end it: the blanks of a stop, or a stop that has none."""
    stop = next((stop for stop in template.stops if rest.startswith(stop)), "")
    blanks = re.match(r"\s*", stop)
    return len(blanks[0]) if blanks and blanks[0] else len(stop)
