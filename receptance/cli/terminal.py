"""What goes between us and the terminal: tables that fit it, streams that can be used, signs of life.

Nothing here loads rich until a console is asked for.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
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

    A file or a pipe gets UTF-8, whatever the system's encoding is, as a model may write letters of any language.  A
    letter that a terminal's encoding lacks becomes `?` on stdout and is spelt out on stderr.
    """
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        # Closed before we began.  The next file to be opened, such as a checkpoint to write, would get the free number,
        # and what a library prints would go into it.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors=errors)


def console() -> Console:
    """A console on stdout, as wide as the terminal, or as wide as it takes where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=UNLIMITED)


def announce_kernels() -> None:
    """Say it on stderr where the CPU kernels have to be compiled first."""
    from ..ops import cpu

    words = "compiling the CPU kernels for this processor, once: about 20 seconds"
    # In a terminal it takes the place of a sign of life that may stand there.
    start = "\r" if sys.stderr.isatty() else ""
    cpu.announce(lambda: print(start + words, file=sys.stderr, flush=True))


@contextmanager
def loading(model: str, quant: str | None = None) -> Iterator[None]:
    """A sign of life on stderr while a model is loaded.

    A download and a model that is quantised have bars of their own, which it would disturb.
    """
    from rich.console import Console

    announce_kernels()
    screen, words = Console(stderr=True), f"loading {printable(model)}"
    if not screen.is_terminal or quant is not None:
        yield
    elif Path(model).exists():
        with screen.status(words):
            yield
    else:
        screen.out(words, highlight=False)
        yield


@contextmanager
def progress(in_bytes: bool = False) -> Iterator[Callable[[int, int | None, str, str], None]]:
    """A bar on stderr, which is moved by `update(completed, total, words, so_far)`; None: nobody knows the total.

    Where Ctrl-C ends the work, the latest `so_far` says what it came to.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    latest = ""
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (BarColumn(), count, TextColumn("{task.description}"), TimeRemainingColumn())
    screen = Console(stderr=True)
    try:
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def update(completed: int, total: int | None, words: str, so_far: str) -> None:
                nonlocal latest
                latest = so_far
                bar.update(task, completed=completed, total=total, description=words)

            yield update
    except KeyboardInterrupt:
        if latest:
            print(latest, file=sys.stderr)
        raise
