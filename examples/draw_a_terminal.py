"""Draws a terminal session as a picture: a program is started in a terminal, keys are typed, the screen is drawn.

    python examples/draw_a_terminal.py little-chat/model.pth docs/images/chat.svg

Draws `receptance chat` with the model of train_a_chat_model.py; that is how the picture of the README was made.  Only
what is typed is written here, what the screen shows is the program's.  Needs `pip install receptance[test]`.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

WIDTH, HEIGHT = 76, 31
TYPED = (
    "my name is Ada",
    "what is 17 + 8?",
    "say plum backwards",
    "what is my name?",
    "/fork",
    "my name is Bob",
    "what is my name?",
    "/fork 1",
    "what is my name?",
    "/reset",
    "what is my name?",
)


class Screen(pyte.Screen):
    """A terminal's screen that also knows dimmed letters, kept as a colour of this name, and answers questions."""

    def __init__(self, answer: Callable[[str], object]) -> None:
        super().__init__(WIDTH, HEIGHT)
        # A program that asks where the cursor is waits to be told.
        self.write_process_input = answer

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if private:
            return
        super().select_graphic_rendition(*attributes)
        if 2 in attributes:
            self.cursor.attrs = self.cursor.attrs._replace(fg="dim")


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.program = pexpect.spawn(command[0], [*command[1:]], dimensions=(HEIGHT, WIDTH), env=environment)
        self.screen = Screen(self.program.send)
        self.stream = pyte.ByteStream(self.screen)

    def wait(self, quiet: float = 1.5, longest: float = 60.0) -> None:
        """Until nothing has come for a while."""
        seconds = longest
        while True:
            try:
                self.stream.feed(self.program.read_nonblocking(2**16, seconds))
            except (pexpect.TIMEOUT, pexpect.EOF):
                return
            seconds = quiet

    def lines(self) -> list[Text]:
        """The screen as it looks."""
        return [self._line(row) for row in range(HEIGHT)]

    def _line(self, row: int) -> Text:
        letters = (self.screen.buffer[row][column] for column in range(WIDTH))
        runs = ((style, "".join(letter.data for letter in run)) for style, run in groupby(letters, style_of))
        return Text.assemble(*((text, style) for style, text in runs), no_wrap=True)


def style_of(letter: pyte.screens.Char) -> Style:
    """How rich would print a letter of the screen."""
    color = {"default": None, "dim": None, "brown": "yellow"}.get(letter.fg, letter.fg)
    color = f"#{color}" if color and re.fullmatch("[0-9a-f]{6}", color) else color
    return Style(color=color, dim=letter.fg == "dim", bold=letter.bold, reverse=letter.reverse)


def as_svg(lines: Sequence[Text], title: str) -> str:
    """The picture.  It is shown in a font of whoever looks at it, instead of fetching one."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(*lines, sep="\n", end="")
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def main() -> None:
    model, picture = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        # A history of its own: nothing that was typed before is in the picture, nor is this in the user's.
        environment = os.environ | {"TERM": "xterm-256color", "XDG_STATE_HOME": home}
        terminal = Terminal([sys.executable, "-m", "receptance", "chat", model, "--seed", "1"], environment)
        terminal.wait(quiet=3)
        for line in TYPED:
            terminal.program.send(line + "\r")
            terminal.wait()
        lines = terminal.lines()
        terminal.program.close()
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(as_svg(lines, f"receptance chat {model}"), "utf-8")


if __name__ == "__main__":
    main()
