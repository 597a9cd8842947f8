"""`receptance chat` before a person: keys go into a real pseudo-terminal and the screen is read."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)

import termios

from .chatting import Terminal, environment, letters_file

CTRL_C, CTRL_D, ALT_ENTER, UP = "\x03", "\x04", "\x1b\r", "\x1b[A"
ANSWER = re.compile(r"^[a-z]{30}$", re.MULTILINE)
OPTIONS = ["--tokenizer", "bytes", "--seed", "1", "--max-tokens", "30"]
PASTE = "\n".join(f"line {number}" for number in range(100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    letters_file(folder)
    return folder


def started(folder: Path, *options: str, **changes: str) -> Terminal:
    return Terminal(["rwkv7-g1-tiny.pth", *OPTIONS, *options], folder, environment(folder, **changes))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Terminal]:
    terminal = started(folder)
    terminal.sees("template g1", "/help lists the commands")
    yield terminal
    terminal.type(CTRL_C + CTRL_D)
    assert terminal.ended() == (0, None)


@pytest.fixture
def terminal(running: Terminal) -> Terminal:
    """The running program with nothing said and nothing on its screen."""
    running.resize(24, 80)
    running.type(CTRL_C)
    running.enter("/reset")
    running.enter("/set max_tokens=30")
    running.settle()
    assert running.status.startswith("0 tokens read")
    return running


def test_a_message_is_answered_and_the_status_tells_of_it(terminal: Terminal) -> None:
    size = re.search(r"state [\d.]+ (kB|bytes)", terminal.status)
    terminal.enter("hello")
    terminal.until(lambda: "tokens/s" in terminal.status)
    assert terminal.lines[0] == "> hello" and ANSWER.match(terminal.lines[1])
    assert "cut after 30 tokens" in terminal.lines[2]
    # [0] and the text of the template, and all that was generated but the last token.
    read = len("\0User: hello\n\nAssistant:") + 29
    assert re.match(rf"[\d.,]+ tokens/s · {read} tokens read · state ", terminal.status)
    assert size is not None and size[0] in terminal.status
    assert "reading" not in terminal.text


def test_every_command(terminal: Terminal, tmp_path: Path) -> None:
    """Each tells what it did; that it did it well is tested without a terminal."""
    terminal.enter("hello")
    terminal.sees("cut after")
    [first] = ANSWER.findall(terminal.text)
    file = tmp_path / "talk"
    for line, words in {
        "/retry": "cut after",
        "/fork": "* 2  2 messages  hello",
        "/fork 1": "* 1  2 messages  hello",
        f"/save {file}": "(2 messages,",
        "/undo": "took back: hello (0 messages)",
        f"/load {file}": "(2 messages, as",
        "/reset": "forgotten",
        "/system You are brief.": "taken",
        "/system": "You are brief.",
        "/system -": "taken",
        "/think on": "think on (of: off, fast, on",
        "/think off": "think off (of: off, fast, on",
        "/set temperature=0.5": "temperature=0.5 (changed)",
        "/set temperature=": "temperature=1.0",
        "/help": "take back the last message",
        "/udno": "did you mean /undo?",
        "/load nothing": "does not exist",
    }.items():
        terminal.clear()
        terminal.enter(line)
        terminal.sees(words)
        assert first not in terminal.text


def test_enter_sends_and_other_keys_begin_a_line(terminal: Terminal) -> None:
    terminal.type(f"one{ALT_ENTER}two\nthree")
    terminal.sees("> one\n  two\n  three")
    terminal.enter("")
    terminal.sees("cut after")
    terminal.clear()
    terminal.enter("/undo")
    terminal.sees("took back: one two three (0 messages)")
    terminal.type(UP + UP)
    terminal.sees("> one\n  two\n  three")


def test_a_paste_of_100_lines_is_one_message(terminal: Terminal) -> None:
    terminal.type(f"\x1b[200~{PASTE}\x1b[201~")
    terminal.sees("  line 99")
    assert "tokens/s" not in terminal.status
    terminal.enter("")
    terminal.sees("cut after")
    assert f" {len(PASTE) + len('0User: ' + 'nnAssistant:') + 29} tokens read" in terminal.status
    terminal.enter("/undo")
    terminal.sees("took back: line 0 line 1 line 2", "(0 messages)")


def test_ctrl_c_stops_the_answer_and_what_was_said_stays(terminal: Terminal) -> None:
    terminal.enter("/set max_tokens=1000000")
    terminal.sees("max_tokens=1000000")
    terminal.clear()
    for message in ("first", "second"):
        terminal.enter(message)
        terminal.until(lambda: re.search(r"[a-z]{40}", terminal.text) is not None)
        terminal.type(CTRL_C)
        terminal.sees("[stopped]")
        terminal.clear()
    terminal.enter("/fork")
    terminal.sees("4 messages  second")
    terminal.enter("/fork 1")
    terminal.sees("* 1  4 messages  second")


def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Terminal) -> None:
    terminal.type("nonsense" + CTRL_C)
    terminal.sees("Ctrl-D or /exit leaves")
    terminal.type(CTRL_C + CTRL_C)
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.enter("/think")
    terminal.sees("think off")
    assert "tokens/s" not in terminal.status


def test_tab_completes_commands_and_what_follows_them(terminal: Terminal) -> None:
    terminal.type("/re\t")
    terminal.sees("/retry", "/reset")
    terminal.type(CTRL_C)
    terminal.clear()
    terminal.type("/th\t")
    terminal.sees("> /think")
    terminal.type("fa\t")
    terminal.sees("> /think fast")
    terminal.type(CTRL_C)
    terminal.type("/load rw\t")
    terminal.sees("> /load rwkv7-g1-tiny.pth")


def test_what_is_typed_during_an_answer_waits_for_the_prompt(terminal: Terminal) -> None:
    terminal.enter("/set max_tokens=300")
    terminal.sees("max_tokens=300")
    terminal.clear()
    terminal.enter("hello")
    terminal.until(lambda: re.search(r"[a-z]{5}", terminal.lines[1]) is not None)
    terminal.enter("/think")
    terminal.type("AHEAD")
    terminal.sees("think off (of:", "> AHEAD")
    assert len(re.findall("AHEAD|/think", terminal.text)) == 2


@pytest.mark.parametrize("columns", [30, 120])
def test_a_resize_while_it_answers_and_while_we_type(terminal: Terminal, columns: int) -> None:
    terminal.enter("/set max_tokens=1000000")
    terminal.sees("max_tokens=1000000")
    terminal.clear()
    terminal.enter("hello")
    terminal.until(lambda: re.search(r"[a-z]{40}", terminal.text) is not None)
    terminal.resize(12, columns)
    terminal.until(lambda: re.search(rf"[a-z]{{{columns}}}", terminal.text) is not None)
    terminal.type(CTRL_C)
    terminal.sees("[stopped]")
    terminal.type("some words")
    terminal.sees("> some words")
    terminal.resize(20, columns + 10)
    terminal.until(lambda: terminal.lines.count("> some words") == 1 and bool(terminal.status))
    terminal.enter("")
    terminal.until(lambda: re.search(rf"[a-z]{{{columns + 10}}}", terminal.text) is not None)
    terminal.type(CTRL_C)
    terminal.sees("[stopped]")


def test_the_history_is_its_owners_alone(terminal: Terminal, folder: Path) -> None:
    file = folder / "receptance" / "chat_history"
    terminal.enter("a secret")
    terminal.sees("cut after")
    assert "+a secret\n" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_ctrl_c_while_a_long_text_is_read_and_sigterm(folder: Path, tmp_path: Path) -> None:
    """The history cannot be kept here either, which stops nothing."""
    (tmp_path / "file").touch()
    terminal = started(folder, "--system", "long " * 25_000, XDG_STATE_HOME=str(tmp_path / "file"))
    before = termios.tcgetattr(terminal.process.child_fd)
    terminal.sees("/help lists the commands")
    terminal.enter("hello")
    terminal.until(lambda: "reading ..." in terminal.text)
    terminal.type(CTRL_C)
    terminal.sees("stopped before the answer began", "0 tokens read")
    terminal.clear()
    terminal.enter("again")
    terminal.until(lambda: "reading ..." in terminal.text)
    os.kill(terminal.process.pid, signal.SIGTERM)
    assert terminal.ended() == (143, None)
    assert "Traceback" not in terminal.text
    assert before[3] & termios.ECHO
    assert b"\x1b[?2004l" in terminal.raw[terminal.raw.rindex(b"\x1b[?2004h") :]


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_without_colours_and_a_hang_up(name: str, value: str, folder: Path) -> None:
    terminal = started(folder, "--think", "on", **{name: value})
    terminal.until(lambda: "/help lists the commands" in terminal.text)
    terminal.enter("hello")
    terminal.until(lambda: "cut after" in terminal.text)
    assert re.search(r"^\[thought\] [a-z]{30}$", terminal.text, re.MULTILINE)
    assert not re.search(rb"\x1b\[[0-9;]*(3|4|9|10)\d[0-9;]*m|\x1b\[2m", terminal.raw)
    terminal.until(lambda: terminal.text.count(">") >= 2)
    pid = terminal.process.pid
    os.close(terminal.process.child_fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
