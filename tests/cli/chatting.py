"""What the tests of `receptance chat` talk with: a tiny model that writes small letters, and a terminal."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from receptance import RWKV, Config
from receptance.checkpoints import save_checkpoint

from ..conftest import ROOT
from ..models.cases import noisy

if TYPE_CHECKING:
    import pexpect

LETTERS = range(ord("a"), ord("z") + 1)
# Without wiring for several cores: the tests share them.
ONE_CORE = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
ROWS, COLUMNS = 24, 80


def letters(said: Sequence[int] = LETTERS) -> RWKV:
    """A model of bytes that says small letters, or others, which ones its state and the noise decide."""
    model = noisy(Config(version="7", vocab_size=256, num_layers=1, dim=16, head_size=8)).requires_grad_(False)
    model.ln_out.bias[0] = 40.0
    model.head.weight[:, 0] = 0.0
    model.head.weight[list(said), 0] = 1.0
    return model


def letters_file(folder: Path, said: Sequence[int] = LETTERS) -> Path:
    """That model as a file, whose name tells its template."""
    path = folder / "rwkv7-g1-tiny.pth"
    save_checkpoint(letters(said), path)
    return path


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """For a process that keeps its history in `folder`; of our own it takes over no wishes about colours."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    own = {"XDG_STATE_HOME": str(folder), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    return inherited | ONE_CORE | own | changes


class Terminal:
    """`receptance chat` behind a terminal of its own: keys go in, and the screen is what a person would see."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        import pexpect
        import pyte

        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._marks = 0
        self.process: pexpect.spawn[bytes] = pexpect.spawn(
            sys.executable,
            ["-m", "receptance", "chat", *arguments],
            dimensions=(ROWS, COLUMNS),
            env=environment,  # type: ignore[arg-type]
            cwd=str(folder),
        )
        # The program asks where the cursor is, as of a real terminal.
        self.screen.write_process_input = self.type

    def type(self, keys: str) -> None:
        self.process.send(keys)

    def enter(self, line: str) -> None:
        """Type a line and send it."""
        self.type(line + "\r")

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()

    @property
    def status(self) -> str:
        """The line at the bottom, while the program waits for us."""
        return self.lines[-1] if re.match(r"[\d.,]+ tokens", self.lines[-1]) else ""

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until the screen is so."""
        import pexpect

        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"this did not come, but:\n{self.text}"
            try:
                self._take(self.process.read_nonblocking(2**16, timeout=1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"the program has ended:\n{self.text}") from None

    def sees(self, *words: str) -> None:
        """Wait until the words are on the screen, however they are wrapped, and the program waits for us."""
        self.until(
            lambda: (
                bool(self.status) and all(word in self.text or word in " ".join(self.text.split()) for word in words)
            )
        )

    def clear(self) -> None:
        """Forget what stands above the line that is typed, so that it cannot be taken for something new."""
        self.type("\x0c")
        self.until(lambda: self.lines[0] == ">" and not any(self.lines[1:-1]) and bool(self.status))

    def settle(self) -> None:
        """Wait until everything that was typed before has been dealt with."""
        self._marks += 1
        self.enter(f"/mark{self._marks}")
        self.sees(f"no command /mark{self._marks};")
        self.clear()

    def resize(self, rows: int, columns: int) -> None:
        self.screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def ended(self) -> tuple[int | None, int | None]:
        """Wait for the end: exit code, or the number of the signal that ended it."""
        import pexpect

        try:
            while True:
                self._take(self.process.read_nonblocking(2**16, timeout=30))
        except pexpect.EOF:
            self.process.close()
        return self.process.exitstatus, self.process.signalstatus

    def _take(self, raw: bytes) -> None:
        self.raw += raw
        self._stream.feed(raw)


def saved(folder: Path, name: str, model: RWKV | None = None) -> Path:
    """A state, of `model` or the one of letters, that is no conversation."""
    model, path = model or letters(), folder / name
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))[1].save(path, model)
    return path
