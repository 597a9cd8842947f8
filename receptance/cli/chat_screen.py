"""Where a conversation is read and written: a terminal with a person before it, or pipes.

screen = PipeScreen() or TerminalScreen(prompt, interrupts)
line = screen.read()                       # None at the end of the input
stopped = screen.answer(pieces)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from ..display import harmless, write

if TYPE_CHECKING:
    from rich.console import Console

    from ..templates import Piece

READING = "reading ..."


class Screen(Protocol):
    """keys    what the keyboard does here, for the help"""

    keys: str

    def read(self) -> str | None:
        """The next message or command; None at the end.  Raises KeyboardInterrupt where Ctrl-C took it back."""

    def say(self, text: str) -> None:
        """Tell something that is not part of the conversation."""

    def complain(self, text: str) -> None:
        """Tell that something went wrong, in one sentence."""

    def answer(self, pieces: Generator[Piece, None, None]) -> bool:
        """Show an answer as it comes; whether the person has stopped it."""


class Interrupts:
    """Ctrl-C as a means to stop what is inside of the `with` block, once, and nothing else.

    The KeyboardInterrupt leaves the block, but may come while it is entered or left; so the `try` stands around it.
    """

    def __init__(self) -> None:
        self._armed = False

    def install(self) -> None:
        """From now on Ctrl-C does nothing outside of the block."""
        signal.signal(signal.SIGINT, self._interrupt)

    def __enter__(self) -> None:
        self._armed = True

    def __exit__(self, *_: object) -> None:
        self._armed = False

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


class PipeScreen:
    """Every line that comes in is a message or a command; answers go to stdout, all else to stderr.

    Only where stdout is a pipe or a file an answer goes there as it is.
    """

    keys = "The end of the input ends the conversation."

    def read(self) -> str | None:
        # A missing stdin has ended.
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.rstrip("\n") if line else None

    def say(self, text: str) -> None:
        print(harmless(text), file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        self.say(f"receptance: {text}")

    def answer(self, pieces: Generator[Piece, None, None]) -> bool:
        thought = False
        with closing(pieces):
            for piece in pieces:
                if piece.kind == "thought":
                    thought = True
                    print(harmless(piece.text), end="", file=sys.stderr, flush=True)
                else:
                    print(harmless(piece.text) if sys.stdout.isatty() else piece.text, end="", flush=True)
        if thought:
            print(file=sys.stderr, flush=True)
        print(flush=True)
        return False


class TerminalScreen:
    """A terminal: messages are edited on it, thoughts are dimmed, and Ctrl-C stops an answer.

    Nothing of an answer moves the cursor, so the terminal itself keeps it in order when it is resized.
    """

    keys = (
        "Enter sends, Alt-Enter or Ctrl-J begins a new line, Tab completes a command, the arrows bring back what was "
        "said.\nCtrl-C stops an answer or clears the line, Ctrl-D leaves. A message that begins with / is written //."
    )

    def __init__(self, read_line: Callable[[], str], interrupts: Interrupts) -> None:
        """`read_line` raises EOFError at the end and KeyboardInterrupt for Ctrl-C, as `chat_prompt.Prompt.read`."""
        from rich.console import Console

        self._read_line, self._interrupts = read_line, interrupts
        self._console = Console(highlight=False)
        self._is_plain = is_plain(self._console)

    def read(self) -> str | None:
        try:
            return self._read_line()
        except EOFError:
            return None

    def say(self, text: str) -> None:
        self._note(text, "dim")

    def complain(self, text: str) -> None:
        self._note(text, "red")

    def answer(self, pieces: Generator[Piece, None, None]) -> bool:
        stopped, kind = False, ""
        with unechoed(), closing(pieces):
            try:
                with self._interrupts:
                    self._hint(READING)
                    for piece in pieces:
                        if not kind:
                            self._hint("")
                        self._show(piece, kind)
                        kind = piece.kind
            except KeyboardInterrupt:
                stopped = True
            finally:
                if kind:
                    self._write("\n")
                else:
                    self._hint("")
        return stopped

    def _show(self, piece: Piece, before: str) -> None:
        if before and piece.kind != before:
            self._write("\n\n")
        if self._is_plain and piece.kind != before and "thought" in (piece.kind, before):
            self._write(f"[{piece.kind}] ")
        self._write(piece.text, "dim" if piece.kind == "thought" else "")

    def _hint(self, text: str) -> None:
        """A word at the start of the line that the next one takes the place of."""
        from rich.control import Control
        from rich.segment import ControlType

        if not self._is_plain:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
            self._write(text, "dim")

    def _note(self, text: str, style: str) -> None:
        """Our own words, which are wrapped between words; those of the model wrap where the terminal does it."""
        from rich.text import Text

        self._console.print(Text(harmless(text), style="" if self._is_plain else style))

    def _write(self, text: str, style: str = "") -> None:
        write(self._console, text, "" if self._is_plain else style)


def is_plain(console: Console) -> bool:
    """Whether the terminal knows no styles, or the person wants none."""
    return console.is_dumb_terminal or console.no_color or console.color_system is None


@contextmanager
def unechoed() -> Iterator[None]:
    """What is typed in the meantime does not show up, and waits for the next prompt as it was typed."""
    try:
        import termios
    except ImportError:  # as under Windows
        yield
        return
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    settings = termios.tcgetattr(sys.stdin)
    quiet = [*settings]
    # Otherwise the terminal would hold a line back and make a Ctrl-J of its Enter.
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, settings)


def leave_on_signals() -> None:
    """Let SIGTERM and a hang-up end the program in the ordinary way, so that the terminal is left as it was."""

    def leave(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:
            # The terminal is gone; nothing that is still to be printed may fail.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        # Started by nohup, we are not to care about a hang-up.
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), leave)
