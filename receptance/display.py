"""Text that plays no tricks on a terminal: names out of files, and what a model writes.

printable(name)                 # one line, for a sentence or a table
write(console, piece, "dim")    # a piece of a text of many lines, as it comes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# What a terminal takes as an order (but line break and tab), and the marks that turn the direction of writing around.
ORDERS = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
# The "\r" of a line break of other systems says nothing more.
HARMLESS = {**dict.fromkeys(ORDERS, "\ufffd"), ord("\r"): None}


# They join letters or keep them apart, in Persian as in emoji, and Python does not call them printable.
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """`text` on one line and without control characters, which names in a file may hold."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() or letter in JOINERS else "\ufffd" for letter in line)


def harmless(text: str) -> str:
    """A text of many lines, or a piece of one, without what a terminal would obey: for what a model wrote."""
    return text.translate(HARMLESS)


def write(console: Console, text: str, style: str = "") -> None:
    """A piece of text, made harmless, at once and without a line end; a long line is the terminal's to wrap."""
    from rich.segment import Segment, Segments
    from rich.style import Style

    # As segments, because everything else that rich prints has its tabs made into spaces.
    segment = Segment(harmless(text), Style.parse(style) if style else None)
    console.print(Segments([segment]), end="", crop=False)
