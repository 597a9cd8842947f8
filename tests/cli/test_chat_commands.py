"""The slash commands of `receptance chat`, what is printed around them, and the chat through pipes."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from receptance import State
from receptance.cli.chat import converse
from receptance.cli.chat_commands import COMMANDS
from receptance.cli.chat_screen import Interrupts, TerminalScreen
from receptance.cli.chat_session import SETTINGS, Session, excerpt
from receptance.display import harmless
from receptance.errors import InputError
from receptance.generation import PRESETS, Chat
from receptance.templates import TEMPLATES, Piece
from receptance.tokenizers import ByteTokenizer

from .chatting import environment, letters, letters_file, saved

COMMAND = [sys.executable, "-m", "receptance", "chat"]


class Record:
    """A screen on which lines are typed beforehand, and which keeps what was said."""

    keys = "no keys"

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.answers: list[str] = []

    def read(self) -> str | None:
        return next(self._lines, None)

    def say(self, text: str) -> None:
        self.said.append(text)

    def complain(self, text: str) -> None:
        self.complaints.append(text)

    def answer(self, pieces: Generator[Piece, None, None]) -> bool:
        self.answers.append("".join(piece.text for piece in pieces))
        return False


@pytest.fixture
def session() -> Session:
    chat = Chat(letters(), ByteTokenizer(), TEMPLATES["g1"], max_tokens=5)
    chat.seed = 1
    return Session(chat)


def after(session: Session, *lines: str) -> Record:
    """What there was to see when these lines were typed."""
    record = Record(lines)
    converse(session, record)
    return record


def complaint(session: Session, line: str) -> str:
    """What is wrong with a line; the conversation goes on after it."""
    record = after(session, line, "/think")
    assert record.said[-1].startswith("think ")
    [said] = record.complaints
    assert "\n" not in said
    return said


def same(one: State | None, other: State | None) -> bool:
    assert one is not None and other is not None
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_undo_retry_and_reset(session: Session) -> None:
    after(session, "one")
    state = session.chat.state
    record = after(session, "two", "/undo")
    assert record.said[-1] == "took back: two (2 messages)" and same(session.chat.state, state)
    record = after(session, "/retry", "/retry")
    assert len(set(record.answers)) == 2 and len(session.chat.messages) == 2
    assert after(session, "/reset").said == ["forgotten; /undo brings it back"] and not session.chat.messages
    assert after(session, "/undo").said == ["it is as before (2 messages)"]
    after(session, "/undo")
    assert "say something first" in complaint(session, "/undo") and "no answer yet" in complaint(session, "/retry")


def test_branches(session: Session) -> None:
    record = after(session, "one", "/fork", "two", "/fork 1")
    assert record.said[-3:] == ["* 1  2 messages  one", "  2  4 messages  two", "/fork N goes to another branch"]
    assert len(session.chat.messages) == 2 and "branch 1 of 2" in session.status()
    for number in ("0", "3", "-1", "two", "²"):
        assert "numbered from 1 to 2" in complaint(session, f"/fork {number}")


def test_a_conversation_in_a_file(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "a talk"
    assert "say something" in complaint(session, f"/save {file}")
    after(session, "one")
    assert "/save FILE" in complaint(session, "/save")
    [said] = after(session, "/save ~/a talk").said
    assert said.startswith(f"saved to {file} (2 messages, ")
    state = session.chat.state
    after(session, "two", "/save", "/fork")
    assert "take another name" in complaint(session, f"/save {file}")
    # Loaded, it is a third branch, and the file is its own.
    assert after(session, "/undo", f"/load {file}").said[1] == f"loaded {file} (4 messages, as branch 3)"
    assert len(session.branches) == 3
    after(session, "/undo", "/save")
    assert same(session.chat.state, state)
    other = Session(Chat(session.chat.model, ByteTokenizer(), TEMPLATES["g1"]))
    assert after(other, f"/load {file}").said[0] == f"loaded {file} (2 messages)"
    assert len(other.branches) == 1 and same(other.chat.state, state)


def test_files_that_cannot_be_used(session: Session, tmp_path: Path) -> None:
    after(session, "one")
    (tmp_path / "foreign").write_text("mine")
    assert "take another name" in complaint(session, f"/save {tmp_path / 'foreign'}")
    assert (tmp_path / "foreign").read_text() == "mine"
    assert "cannot be written" in complaint(session, f"/save {tmp_path / 'foreign' / 'folder'}")
    assert "no saved state" in complaint(session, f"/load {tmp_path / 'foreign'}")
    assert "no conversation" in complaint(session, f"/load {saved(tmp_path, 'state')}")
    assert "does not exist" in complaint(session, f"/load {tmp_path / 'nothing'}")
    assert "/load FILE" in complaint(session, "/load")
    complaint(session, "/load ~no-such-user/talk")
    for name in ("x" * 5000, "a\0b", "a\udcffb", "/"):
        complaint(session, f"/save {name}")
        complaint(session, f"/load {name}")
    assert len(session.branches) == 1 and len(session.chat.messages) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "state"]


def test_system_and_think(session: Session) -> None:
    assert after(session, "/system", "/system Be brief.", "/system").said == [
        "there is no system text; /system TEXT sets one",
        "taken",
        "Be brief.\n(/system - removes it)",
    ]
    after(session, "one")
    assert session.chat.moment.text.startswith("System: Be brief.\n\nUser: one")
    assert "read again" in after(session, "/system -").said[0]
    after(session, "two")
    assert session.chat.moment.text.startswith("User: one")
    after(session, "/think a bit", "three")
    assert session.chat.think == "a bit" and "three (think a bit)\n\nAssistant: <think" in session.chat.moment.text
    assert "off, fast, on" in complaint(session, "/think harder") and session.chat.think == "a bit"


def test_settings(session: Session) -> None:
    assert replace(session.chat.effective_sampling(), seed=None) == PRESETS["g1-fast"]
    after(session, "/think on", "/set temperature = 0", "/set top_k=3")
    assert session.chat.effective_sampling().top_p == PRESETS["g1-think"].top_p
    assert after(session, "/set temperature").said == ["temperature=0.0 (changed)"]
    after(session, "/set temperature=", "/set max_tokens=7", "/set seed=12", "one")
    assert session.chat.settings == {"top_k": 3} and session.chat.seed == 12
    assert session.chat.reply is not None and session.chat.reply.num_tokens == 7
    record = after(session, "/set")
    assert [line.partition("=")[0] for line in record.said] == list(SETTINGS)
    for wrong, words in {
        "heat=1": "no setting 'heat'",
        "heat": "no setting 'heat'",
        "temperature=warm": "must be a number",
        "temperature=-1": "from 0 to 100",
        "top_k=1.5": "a whole number",
        "order=mine": "official or usual",
        "max_tokens=0": "at least 1",
        "seed=-1": "from 0",
    }.items():
        assert words in complaint(session, f"/set {wrong}")
    assert session.chat.settings == {"top_k": 3}


def test_settings_that_were_given_hold_in_every_branch_and_mode(session: Session) -> None:
    session.chat.sampling, session.chat.settings = PRESETS["creative"], {"top_p": 0.1}
    after(session, "/fork", "/think on", "/set min_p=0.2", "one")
    for branch in session.branches:
        sampling = branch.chat.effective_sampling()
        assert (sampling.temperature, sampling.top_p, sampling.min_p) == (1.2, 0.1, 0.2)


def test_the_help_names_every_command_and_the_end_ends(session: Session) -> None:
    [listed, keys] = after(session, "/help").said
    assert all(f"/{name}" in listed for name in COMMANDS) and keys == Record.keys
    for end in ("/exit", "/quit"):
        session.ended = False
        assert not after(session, end, "one").answers and session.ended


def test_what_is_no_command(session: Session) -> None:
    assert "did you mean /undo?" in complaint(session, "/udno")
    assert "/help lists them" in complaint(session, "/")
    assert "/help lists them" in complaint(session, "/\x1b[2J") and "\x1b" not in complaint(session, "/\x1b[2J")
    assert "takes nothing" in complaint(session, "/undo 3")
    after(session, "//usr/bin is a folder", "  ", "")
    assert [message.content for message in session.chat.messages if message.role == "user"] == ["/usr/bin is a folder"]


def test_an_error_of_the_model_does_not_end_the_conversation(session: Session) -> None:
    record = after(session, "bad \ud800 letter", "one")
    assert len(record.complaints) == 1 and len(record.answers) == 1 and len(session.chat.messages) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=type)
def test_a_lack_of_memory_does_not_end_the_conversation(session: Session, error: Exception) -> None:
    def fail(*_: object) -> None:
        hook.remove()
        raise error

    hook = session.chat.model.emb.register_forward_pre_hook(fail)
    record = after(session, "one", "two")
    [said] = record.complaints
    assert said.startswith("there is not enough memory") and len(record.answers) == 1
    assert [message.content for message in session.chat.messages[:1]] == ["two"]


def test_a_fault_of_ours_ends_it(session: Session) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    session.chat.model.emb.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        after(session, "one")


def test_a_loaded_conversation_as_it_is_wished_now(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "talk"
    after(session, "/system Be brief.", "/think a bit", "one", f"/save {file}")
    other = Session(Chat(session.chat.model, ByteTokenizer(), TEMPLATES["world"]))
    other.load(str(file))
    other.take_over(None, None, None)
    assert (other.chat.template, other.chat.think, other.chat.system) == (TEMPLATES["g1"], "a bit", "Be brief.")
    other.take_over("Be long.", None, TEMPLATES["world"])
    assert (other.chat.template, other.chat.think, other.chat.system) == (TEMPLATES["world"], "off", "Be long.")
    with pytest.raises(InputError, match="no think mode 'on'"):
        other.take_over(None, "on", None)


def shown(*pieces: Piece, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What a terminal gets of an answer."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stdout = io.StringIO()
    stdout.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", stdout)

    def come() -> Generator[Piece, None, None]:
        yield from pieces

    assert not TerminalScreen(lambda: "", Interrupts()).answer(come())
    return stdout.getvalue()


def test_a_thought_is_dim_and_the_answer_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = (Piece("thought", "Hm"), Piece("thought", "m."), Piece("answer", "Yes.\n\nNo."))
    raw = shown(*pieces, monkeypatch=monkeypatch, TERM="xterm")
    assert raw.endswith("\x1b[2mHm\x1b[0m\x1b[2mm.\x1b[0m\n\nYes.\n\nNo.\n")
    raw = shown(*pieces, monkeypatch=monkeypatch, TERM="dumb")
    assert raw == "[thought] Hmm.\n\n[answer] Yes.\n\nNo.\n"


def test_an_answer_plays_no_tricks_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "a\x1b[2Jb\x07c\x9b31md\re\u202ef[red]:smile:\tg\nh"
    raw = shown(Piece("answer", evil), monkeypatch=monkeypatch, TERM="xterm")
    assert raw.endswith("a\ufffd[2Jb\ufffdc\ufffd31mde\ufffdf[red]:smile:\tg\nh\n")
    assert harmless("déjà 日本 👩\u200d🔬 \u00a0\u3000") == "déjà 日本 👩\u200d🔬 \u00a0\u3000"


def test_an_excerpt_is_short_and_one_line() -> None:
    assert excerpt("a\nb") == "a b" and excerpt("x" * 50) == "x" * 50
    assert excerpt("x" * 51) == "x" * 49 + "…" and excerpt("  \n" * 100 + "x") == "…"


def piped(folder: Path, lines: bytes, *options: str | Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
    arguments = [*COMMAND, letters_file(folder), "--tokenizer", "bytes", "--seed", "1", "--max-tokens", "9", *options]
    return subprocess.run(arguments, input=lines, capture_output=True, cwd=folder, env=environment(folder, **changes))


def test_through_pipes(tmp_path: Path) -> None:
    lines = "hello\n\n/think on\nmüde\n/nope\n/undo\n//x\n\\xff\n/save talk".encode().replace(b"\\xff", b"\xff")
    # The text of pipes is UTF-8, whatever the system's encoding.
    result = piped(tmp_path, b"\xef\xbb\xbf" + lines, "--system", "Be brief.", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and b"\x1b" not in result.stdout + result.stderr
    answers, said = result.stdout.decode().split("\n"), result.stderr.decode()
    # The second and the third are nothing but thoughts, which do not go to stdout.
    assert len(answers) == 4 and len(answers[0]) == 9 and answers[1:] == ["", "", ""]
    for words in ("template g1", "think on", "no command /nope", "took back: müde", "U+DCFF", "saved to"):
        assert words in said


def test_a_conversation_and_a_state_to_start_from(tmp_path: Path, session: Session) -> None:
    after(session, "one", f"/save {tmp_path / 'talk'}")
    [expected] = after(session, "two").answers
    result = piped(tmp_path, b"two", "--load", tmp_path / "talk", "--max-tokens", "5")
    assert result.stdout.decode() == expected + "\n", result.stderr
    assert f"loaded {tmp_path / 'talk'} (2 messages)" in result.stderr.decode()
    assert "a guess" not in result.stderr.decode()
    state = saved(tmp_path, "state")
    refused = piped(tmp_path, b"", "--load", tmp_path / "talk", "--state", state)
    assert refused.returncode == 2 and b"--state does not go with --load" in refused.stderr
    [fresh] = after(session, "/reset", "two").answers
    result = piped(tmp_path, b"two\n", "--state", state, "--max-tokens", "5")
    assert len(result.stdout) == 6 and result.stdout.decode() != fresh + "\n", result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_pipe_in_and_a_terminal_out(tmp_path: Path) -> None:
    """`ESC c` would clear the screen and more; neither an answer nor a thought gets it through."""
    import pexpect

    model = letters_file(tmp_path, [0x1B, ord("c")])
    arguments = [*COMMAND, model, "--tokenizer", "bytes", "--seed", "1", "--max-tokens", "60"]
    line = "printf 'hi\\n/think on\\nhi\\n' | " + shlex.join(map(str, arguments))
    terminal = pexpect.spawn("sh", ["-c", line], env=environment(tmp_path), timeout=60)  # type: ignore[arg-type]
    raw = terminal.read()
    assert raw.count(b"cut after 60 tokens") == 2
    assert b"\x1bc" not in raw and b"\x1b\x1b" not in raw
    assert raw.decode().count("\ufffd") > 50


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_leaves(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [*COMMAND, letters_file(tmp_path), "--tokenizer", "bytes"]
    result = subprocess.run(
        arguments, input=b"hello\n", stdout=writer, stderr=subprocess.PIPE, env=environment(tmp_path)
    )
    os.close(writer)
    assert result.returncode == 1 and b"Traceback" not in result.stderr and b"roken" not in result.stderr


def test_no_model_is_one_sentence() -> None:
    result = subprocess.run(COMMAND, input=b"", capture_output=True)
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1
    assert b"receptance chat rwkv7-" in result.stderr and b"receptance models" in result.stderr


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from receptance.cli import app\n"
        "app(['chat', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'prompt_toolkit', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
