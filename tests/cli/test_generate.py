"""`receptance generate`: what goes where, in a pipe and on a terminal, and what is refused in one sentence."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import receptance
from receptance import Config
from receptance.checkpoints import save_checkpoint
from receptance.cli import app
from receptance.cli.options import unescaped
from receptance.generation import PRESETS

from ..models.cases import noisy

# The package has a function of this name.
command = import_module("receptance.cli.generate")
# More threads would wait for one another beside the other tests.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "receptance"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a small model of bytes."""
    path = tmp_path_factory.mktemp("model") / "bytes.pth"
    save_checkpoint(noisy(Config(version="7", vocab_size=256, num_layers=1, dim=16, head_size=8)), path)
    return path


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """The command within this process.  Without `stdin` nothing is piped in."""
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], input=stdin, terminal_width=200)


def spoken(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return result.stdout_bytes.decode()


def test_the_text_goes_to_stdout_and_the_figures_to_stderr(model: Path) -> None:
    expected = receptance.load(model).generate("Hello", 12, seed=5)
    result = run("Hello", "-m", model, "-n", 12, "--seed", 5)
    assert spoken(result) == expected.text
    assert "6 tokens read" in result.stderr and "12 generated" in result.stderr
    assert "--max-tokens ended it" in result.stderr and "--seed 5 gives it again" in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_option_reaches_the_sampler(model: Path) -> None:
    settings = {
        "temperature": 1.4,
        "top_p": 0.9,
        "top_k": 50,
        "min_p": 0.01,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "penalty_decay": 0.9,
        "order": "usual",
        "seed": 3,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    expected = receptance.load(model).generate("Hello", 12, **settings)
    assert spoken(run("Hello", "-m", model, "-n", 12, *options)) == expected.text
    greedy = receptance.load(model).generate("Hello", 8, sampling=PRESETS["greedy"])
    assert spoken(run("Hello", "-m", model, "-n", 8, "--preset", "greedy")) == greedy.text


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"], ids=["bare", "line break", "windows"])
@pytest.mark.parametrize("prompt", [None, "-"], ids=["absent", "minus"])
def test_a_piped_prompt_loses_its_last_line_break(
    ending: bytes, prompt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, read in [("Zwei\nZeilen é", "Zwei\nZeilen é"), ("\ufeffa", "a")]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode() + ending)))
        assert command._read(prompt) == read
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\n" + ending)))
    assert command._read(prompt) == ("a\n\n" if ending else "a\n")


def test_an_empty_pipe_is_no_prompt(model: Path) -> None:
    result = run("-m", model, stdin=b"")
    assert result.exit_code == 2 and "nothing came through the pipe" in result.stderr
    assert spoken(run("-", "-m", model, "-n", 3, "--seed", 1, stdin=b"")) == spoken(
        run("", "-m", model, "-n", 3, "--seed", 1)
    )


def test_figures_begin_a_line_of_their_own(model: Path) -> None:
    command = [*COMMAND, "generate", "Hello", "-m", str(model), "-n", "5", "--seed", "1"]
    both = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ONE_THREAD, check=True)
    assert re.search(rb"\n6 tokens read in", both.stdout)


def test_a_prompt_through_a_pipe(model: Path) -> None:
    expected = receptance.load(model).generate("Hello", 6, seed=1)
    assert spoken(run("-m", model, "-n", 6, "--seed", 1, stdin=b"Hello\n")) == expected.text


def test_a_stop(model: Path) -> None:
    whole = receptance.load(model).generate("Hello", 30, seed=1).text
    stop = whole[7:9]
    result = run("Hello", "-m", model, "-n", 30, "--seed", 1, "--stop", r"\n\n", "--stop", stop)
    assert spoken(result) == whole[: whole.index(stop)]
    assert "it came to an end" in result.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(r"\n\nUser:", "\n\nUser:"), (r"\\n", r"\n"), (r"C:\temp", "C:\temp"), (r"\d", r"\d"), ("\\", "\\")],
)
def test_escapes_of_a_stop(typed: str, meant: str) -> None:
    assert unescaped(typed) == meant


def test_json(model: Path) -> None:
    expected = receptance.load(model).generate("Hello", 8, seed=2, logprobs=2)
    values = json.loads(spoken(run("Hello", "-m", model, "-n", 8, "--seed", 2, "--json", "--logprobs", 2)))
    assert values["text"] == expected.text and values["tokens"] == list(expected.tokens)
    assert (values["finish_reason"], values["seed"], values["num_prompt_tokens"]) == ("length", 2, 6)
    assert [told["token"] for told in values["logprobs"]] == list(expected.tokens)
    assert all(len(told["top"]) == 2 for told in values["logprobs"])
    assert "thought" not in values and "logprobs" not in json.loads(spoken(run("a", "-m", model, "-n", 2, "--json")))


@pytest.mark.parametrize("think", ["off", "on"])
def test_a_message_is_answered_in_the_models_form(model: Path, think: str) -> None:
    """The same answer as of a conversation with the same seed, which goes its own way to the template."""
    lm = receptance.load(model, template="g1")
    chat = lm.chat(system="Be brief.", think=think, max_tokens=12)
    chat.seed = 4
    reply = chat.ask("Hello")
    options = [
        "-m",
        model,
        "--template",
        "g1",
        "--chat",
        "--system",
        "Be brief.",
        "--think",
        think,
        "-n",
        12,
        "--seed",
        4,
    ]
    values = json.loads(spoken(run("Hello", *options, "--json")))
    assert (values["text"], values["thought"]) == (reply.text, reply.thought)
    assert values["num_prompt_tokens"] == reply.num_prompt_tokens
    streamed = run("Hello", *options)
    assert spoken(streamed).strip() == reply.text
    # A model of noise never ends its thought, so all of it is one.
    assert bool(reply.thought) == (think == "on")
    if think == "on":
        assert streamed.stdout == "" and len(streamed.stderr.splitlines()) >= 2


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_template_that_is_a_guess_is_told(model: Path, options: list[str]) -> None:
    arguments = ["Hello", "-m", model, "-n", 2, *options]
    told = "template g1 (a guess, for the model's name tells none; --template names another)\n"
    assert run(*arguments, "--chat").stderr.startswith(told)
    assert "template" not in run(*arguments, "--chat", "--template", "g1").stderr + run(*arguments).stderr


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_pipe_gets_utf8_whatever_the_system_writes(model: Path, options: list[str]) -> None:
    arguments = [*COMMAND, "generate", "北京", "-m", str(model), "-n", "60", "--seed", "1", "-t", "2", *options]
    expected = receptance.load(model).generate("北京", 60, seed=1, temperature=2.0).text
    assert not expected.isascii()
    environment = ONE_THREAD | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    result = subprocess.run(arguments, stdout=subprocess.PIPE, env=environment, check=True)
    printed = result.stdout.decode("utf-8")
    assert (json.loads(printed)["text"] if options else printed) == expected


def test_a_state_goes_before_the_prompt(model: Path, tmp_path: Path) -> None:
    lm = receptance.load(model)
    _, state = lm.model(torch.tensor([[1, 2, 3]]))
    state.save(tmp_path / "s.safetensors", lm.model)
    expected = lm.generate("Hello", 10, seed=1, state=state)
    result = run("Hello", "-m", model, "-n", 10, "--seed", 1, "--state", tmp_path / "s.safetensors")
    assert spoken(result) == expected.text and "5 tokens read" in result.stderr
    lm.model(torch.tensor([[1], [2]]))[1].save(tmp_path / "two.safetensors", lm.model)
    refused = run("Hello", "-m", model, "--state", tmp_path / "two.safetensors")
    assert refused.exit_code == 2 and refused.stderr.startswith("receptance: ")


REFUSED = {
    "no such model": (["Hello", "-m", "missing.pth"], "missing.pth"),
    "temperature": (["Hello", "-m", "missing.pth", "--temperature", "-1"], "temperature must be"),
    "temperature nan": (["Hello", "-m", "missing.pth", "--temperature", "nan"], "temperature must be"),
    "preset": (["Hello", "-m", "missing.pth", "--preset", "gredy"], "did you mean greedy?"),
    "order": (["Hello", "-m", "missing.pth", "--order", "mine"], "official"),
    "limit": (["Hello", "-m", "missing.pth", "-n", "0"], "--max-tokens"),
    "seed": (["Hello", "-m", "missing.pth", "--seed", "-1"], "--seed"),
    "empty model": (["Hello", "-m", ""], "the name of the model is empty"),
    "system alone": (["Hello", "-m", "missing.pth", "--system", "x"], "needs --chat"),
    "think alone": (["Hello", "-m", "missing.pth", "--think", "on"], "needs --chat or --batch"),
    "logprobs alone": (["Hello", "-m", "missing.pth", "--logprobs", "1"], "needs --json"),
    "batch size alone": (["Hello", "-m", "missing.pth", "--batch-size", "1"], "needs --batch"),
    "prompt and batch": (["Hello", "-m", "missing.pth", "--batch", "a", "b"], "does not go with --batch"),
    "no UTF-8": (["\udcff", "-m", "missing.pth"], "the prompt is no UTF-8 from character 1"),
    "system no UTF-8": (
        ["Hello", "-m", "missing.pth", "--chat", "--system", "a\udcff"],
        "the system text is no UTF-8 from character 2",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_is_loaded(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_what_the_model_refuses(model: Path) -> None:
    for arguments, words in [
        (["Hello", "-m", model, "--stop", ""], "a stop cannot be empty"),
        (["Hello", "-m", model, "--chat", "--template", "g1", "--think", "hard"], "no think mode 'hard'"),
        (["Hello", "-m", model, "--json", "--logprobs", 1000], "256 tokens"),
        (["Hello", "-m", model, "--state", model], "holds no state"),
        (["Hello", "-m", model, "--template", "wrld"], "needs --chat"),
        (["Hello", "-m", model, "--chat", "--template", "wrld"], "did you mean world?"),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert words in " ".join(result.stderr.split())


def test_a_pipe_that_holds_no_text(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("-m", model, stdin=b"abc\xff")
    assert result.exit_code == 2 and "no UTF-8 from byte 4" in result.stderr
    monkeypatch.setattr(command, "LONGEST_PROMPT", 10)
    result = run("-m", model, stdin=b"x" * 11)
    assert result.exit_code == 2 and "longer than 10 bytes" in result.stderr


def test_nobody_waits_for_a_prompt_at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = io.TextIOWrapper(io.BytesIO())
    keyboard.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", keyboard)
    with pytest.raises(receptance.InputError, match="there is no prompt"):
        command._read(None)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(receptance.InputError, match="there is no prompt"):
        command._read("-")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_what_was_written(model: Path) -> None:
    arguments = ["generate", "Hello", "-m", model, "-n", "10000000", "--seed", "1"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ONE_THREAD
    )
    assert process.stdout is not None
    first = process.stdout.read(8)
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=30)
    assert process.returncode == 130 and first
    assert said.count(b"\n") == 1 and b"you ended it" in said
    (first + rest).decode()  # whole characters


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_on_a_terminal(model: Path) -> None:
    import pexpect

    arguments = ["generate", "A prompt", "-m", str(model), "-n", "10000000", "--seed", "1", "--temperature", "2"]
    terminal = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *arguments], env=ONE_THREAD | {"TERM": "xterm"}, timeout=30)
    terminal.expect_exact("\x1b[2mA prompt\x1b[0m")
    shown = b""
    while len(shown) < 400:
        shown += terminal.read_nonblocking(1000, timeout=30)
    terminal.sendintr()
    terminal.expect_exact("you ended it")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    # The terminal's own line breaks apart, no control character of a model of noise gets through.
    text = shown.decode("utf-8", "ignore").replace("\r\n", "\n")
    assert not [letter for letter in text if ord(letter) < 32 and letter not in "\n\t"]
    assert "\ufffd" in text
