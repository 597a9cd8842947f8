"""Where in a prompt others may have begun alike: the system text, every turn.

    places = shared_places(messages, write)              # characters of write(messages)
    marks = marks_of(text, tokens, places, tokenizer)    # numbers of tokens

The state after such a place can serve all of them.  A conversation that has grown has the marks that it had before, and
further ones: a state is known by everything before it, the earlier marks included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from ..templates import Message
from ..tokenizers import Tokenizer
from ..tokenizers.tokenizer import utf8

# A letter that no text has, of Unicode's private ones: it is written where a message begins, to see where that is.
FLAG = "\ue000"
# Marks are at least so many tokens apart, and at least this part of what comes before them: a state takes memory, and
# a piece that is read by itself takes time.  What is read again for want of a mark is as little.
NEAREST, PART = 16, 1 / 16


def shared_places(messages: Sequence[Message], write: Callable[[Sequence[Message]], str]) -> list[int]:
    """Places in `write(messages)`, in characters, up to which it does not depend on the messages from there on.

    Such a place lies before each message of the user or the assistant, and before the answer that is to come.
    """
    text = write(messages)
    if FLAG in text:
        return []
    flagged = write([*map(_flagged, messages), Message("assistant", FLAG), Message("user", FLAG)])
    parts = flagged.split(FLAG)
    whole = "".join(parts)
    # White space before a message may be one token with its first word.
    places = {len(whole[:place].rstrip()) for place in accumulate(map(len, parts[:-1]))}
    # What the template makes of a conversation that goes on may differ from a place on: as a think mode is told.
    same = common_length(text, whole)
    return sorted(place for place in places if place <= same)


def spoken(messages: Sequence[Message], write: Callable[[Sequence[Message]], str]) -> str:
    """A conversation as it is read, whoever spoke last: up to where the user's next words would begin."""
    return write([*messages, Message("user", FLAG)]).rpartition(FLAG)[0].rstrip()


def _flagged(message: Message) -> Message:
    if message.role not in ("user", "assistant") or message.raw is not None or not message.content.strip():
        return message
    start = len(message.content) - len(message.content.lstrip())
    return replace(message, content=message.content[:start] + FLAG + message.content[start:])


def common_length(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def marks_of(text: str, tokens: Sequence[int], places: Iterable[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """For places in a text, in rising order, the number of its tokens that end there or before; those far apart.

    There are none where the tokens do not write the text as it is, for instance in another of Unicode's forms.
    """
    data = utf8(text)
    ends = list(accumulate(len(tokenizer.token_bytes(token)) for token in tokens))
    if tokenizer.decode_bytes(tokens) != data:
        return ()
    marks, start, length = [0], 0, 0
    for place in places:
        length += len(utf8(text[start:place]))
        start = place
        mark = bisect_right(ends, length)
        if mark - marks[-1] >= max(NEAREST, PART * mark):
            marks.append(mark)
    return tuple(marks[1:])
