"""What is printed arrives: in any encoding, with stdout closed, uncut in a pipe, and without control characters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from receptance.cli.guard import sentence
from receptance.cli.terminal import progress
from receptance.display import printable
from receptance.errors import CheckpointError

Write = Callable[[str], Path]
COMMAND = [sys.executable, "-m", "receptance"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, env=os.environ | environment)


@pytest.fixture
def foreign(small_checkpoint: Write, tmp_path: Path) -> Path:
    """A checkpoint with a name that many encodings lack."""
    path = tmp_path / "日本.pth"
    path.write_bytes(small_checkpoint("7").read_bytes())
    return path


def test_into_a_pipe_goes_utf8(foreign: Path) -> None:
    result = run("info", foreign, PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert (result.returncode, result.stderr) == (0, b"")
    assert str(foreign) in result.stdout.decode("utf-8")
    missing = run("info", foreign.with_name("中国.pth"), PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert "中国.pth" in missing.stderr.decode("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_letter_that_a_terminal_lacks_is_a_question_mark(foreign: Path) -> None:
    import pexpect

    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    terminal = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "info", str(foreign)], env=environment, dimensions=(24, 300))
    printed = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0 and b"??.pth" in printed and b"RWKV-7" in printed


def test_what_was_done_until_ctrl_c_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress() as update:
        update(1, None, "slow", "one is done")
        update(2, 3, "fast", "two are done")
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "two are done\n"
    with pytest.raises(KeyboardInterrupt), progress(in_bytes=True):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
def test_a_closed_stdout_is_no_failure(closed: str, small_checkpoint: Write) -> None:
    command = ["sh", "-c", f'"$0" -m receptance info "$1" {closed}', sys.executable, str(small_checkpoint("7"))]
    result = subprocess.run(command, capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_nothing_printed_gets_into_a_file_that_takes_the_place_of_stdout(tmp_path: Path) -> None:
    """A closed stdout leaves its number free for the next file that is opened."""
    code = (
        "import os, sys\n"
        "from receptance.cli.terminal import prepare_streams\n"
        "prepare_streams()\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    os.write(1, b'printed by a library')\n"
    )
    target = tmp_path / "target"
    command = ["sh", "-c", '"$0" -c "$1" "$2" >&-', sys.executable, code, str(target)]
    assert subprocess.run(command).returncode == 0
    assert target.read_bytes() == b""


def test_a_long_path_is_whole_in_a_pipe(small_checkpoint: Write, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200) / "model.pth"
    path.parent.mkdir()
    path.write_bytes(small_checkpoint("7").read_bytes())
    assert str(path) in run("info", path, COLUMNS="60").stdout.decode()


def test_a_long_path_is_folded_on_a_terminal(
    small_checkpoint: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    path = tmp_path / ("x" * 200) / "model.pth"
    path.parent.mkdir()
    path.write_bytes(small_checkpoint("7").read_bytes())
    module = import_module("receptance.cli.info")  # by name, as `receptance.cli` has a function of that name
    monkeypatch.setattr(module, "console", lambda: Console(width=60))
    module.info(str(path), length=1)
    printed = capsys.readouterr().out
    assert "…" not in printed and printed.count("x") >= 200
    assert max(map(len, printed.splitlines())) <= 60


def test_an_error_plays_no_tricks_on_the_terminal() -> None:
    said = sentence(CheckpointError("a.pth has the tensor \x1b[2J\u202eevil\x07\nnext"))
    assert said == "a.pth has the tensor \ufffd[2J\ufffdevil\ufffd next"
    assert sentence(FileNotFoundError(2, "No such file", "\x1b]0;x")) == "cannot use \ufffd]0;x: no such file"


def test_names_in_a_file_are_neither_markup_nor_control_characters(
    small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from receptance import describe
    from receptance.cli.info import info

    found = describe.describe(small_checkpoint("7"))
    found.tensors["[red]evil[/]\x1b[2J"] = ((1,), "float32")
    monkeypatch.setattr("receptance.describe.describe", lambda _: found)
    info("any", tensors=True, length=1)
    printed = capsys.readouterr().out
    assert "[red]evil[/]\ufffd[2J" in printed and "\x1b" not in printed


def test_printable_keeps_letters_of_all_languages() -> None:
    assert printable("déjà 日本 🙂 a\tb") == "déjà 日本 🙂 a b"


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from receptance.__main__ import main
main()
"""


def test_ctrl_c_while_the_command_line_loads() -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "receptance: stopped\n")
