"""What goes between us and the terminal: text that plays no tricks on it, tables that fit it, streams that can be used.

Nothing here loads rich until a console is asked for.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# More than any line has: into a file or a pipe nothing is wrapped.
UNLIMITED = 100_000
# What a terminal takes as an order (but line break and tab), and the marks that turn the direction of writing around.
ORDERS = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
# The "\r" of a line break of other systems says nothing more.
HARMLESS = {**dict.fromkeys(ORDERS, "\ufffd"), ord("\r"): None}


def prepare_streams() -> None:
    """Make stdout and stderr take whatever is printed.

    A letter that stdout's encoding lacks becomes `?`.  stderr spells such letters out by itself.
    """
    for name in ("stdout", "stderr"):
        # Closed before we began.  The next file to be opened, such as a checkpoint to write, would get the free number,
        # and what a library prints would go into it.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def printable(text: str) -> str:
    """`text` on one line and without control characters, which names in a file may hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def harmless(text: str) -> str:
    """A text of many lines, or a piece of one, without what a terminal would obey: for what a model wrote."""
    return text.translate(HARMLESS)


def console() -> Console:
    """A console on stdout, as wide as the terminal, or as wide as it takes where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=UNLIMITED)
