"""Conversations that are made up, for a small model to learn from: questions with one right answer each.

    python examples/made_up_conversations.py             # prints one

Sums, the larger of two numbers, spelling, words backwards, and a name that is told in one message and asked for in a
later one.  Every tenth word and every tenth pair of numbers is held out, to ask for what was not in the training.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from string import ascii_lowercase
from typing import NamedTuple, TypeVar

# How many conversations practise what; sums and memory take the longest to learn.
HOW_OFTEN = {"sum": 10, "larger": 4, "spell": 4, "backwards": 4, "memory": 12, "greet": 1}
GREETING = "Hello! I can add, compare, spell, turn words around, and remember."
UNKNOWN = "I do not know."
T = TypeVar("T")


class Exchange(NamedTuple):
    """A message, its answer, and what is practised with it."""

    kind: str
    message: str
    answer: str


def conversation(draw: random.Random, held_out: bool = False) -> Iterator[Exchange]:
    """A few exchanges.  No pair of numbers and no word is both in those that are held out and in the others."""
    kinds = draw.choices([*HOW_OFTEN], [*HOW_OFTEN.values()], k=3)
    name = None
    for _ in range(draw.randint(2, 7)):
        a, b = unless_held_out(lambda: draw.sample(range(1, 21), 2), held_out)
        # Who knows what to do with letters at random knows it with any word.
        word = unless_held_out(lambda: "".join(draw.choices(ascii_lowercase, k=draw.randint(3, 5))), held_out)
        word = draw.choice([word, word.capitalize()])
        exchanges = {
            "sum": (f"{draw.choice(['what is ', ''])}{a} + {b}?", str(a + b)),
            "larger": (f"which is larger, {a} or {b}?", str(max(a, b))),
            "spell": (f"spell {word}", "-".join(word)),
            "backwards": (f"say {word} backwards", word[::-1]),
            "tell": (f"{draw.choice(['my name is', 'I am'])} {word}", f"Your name is {word}."),
            "recall": (draw.choice(["what is my name?", "who am I?"]), f"Your name is {name}."),
            "unknown": (draw.choice(["what is my name?", "who am I?"]), UNKNOWN),
            "greet": (draw.choice(["hi", "hello", "who are you?", "help"]), GREETING),
        }
        kind = draw.choice(kinds)
        if kind == "memory":
            kind = draw.choice(["recall", "recall", "recall", "tell"] if name else ["unknown", "tell", "tell"])
        if kind == "tell":
            name = word
        message, answer = exchanges[kind]
        # As one person or another would type it.
        message = draw.choice([message, message[0].upper() + message[1:]])
        yield Exchange(kind, draw.choice([message, message.rstrip("?")]), answer)


def unless_held_out(make: Callable[[], T], held_out: bool) -> T:
    """Something new of which every tenth kind is held out, the same ones in every run; or one of these."""
    while True:
        item = make()
        if (zlib.crc32(repr(item).encode()) % 10 == 0) == held_out:
            return item


def as_text(exchanges: list[Exchange]) -> str:
    """A conversation in the template of the World models."""
    return "".join(f"User: {message}\n\nAssistant: {answer}\n\n" for _, message, answer in exchanges)


if __name__ == "__main__":
    print(as_text(list(conversation(random.Random()))))
