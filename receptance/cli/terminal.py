"""What goes between us and the terminal: tables that fit it, streams that can be used, signs of life.

Nothing here loads rich until a console is asked for.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..display import printable

if TYPE_CHECKING:
    from rich.console import Console

# More than any line has: into a file or a pipe nothing is wrapped.
UNLIMITED = 100_000


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


def console() -> Console:
    """A console on stdout, as wide as the terminal, or as wide as it takes where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=UNLIMITED)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """A sign of life on stderr while a model is loaded; a download has bars of its own, which it would disturb."""
    from rich.console import Console

    screen, words = Console(stderr=True), f"loading {printable(model)}"
    if not screen.is_terminal:
        yield
    elif Path(model).exists():
        with screen.status(words):
            yield
    else:
        screen.out(words, highlight=False)
        yield
