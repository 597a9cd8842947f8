"""Every error that a user can cause is one sentence and an exit code; everything else is a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from receptance.cli.guard import DEBUG, YES, Guarded, sentence
from receptance.errors import CheckpointError, MissingExtraError

COMMAND = [sys.executable, "-m", "receptance"]


def raising(error: BaseException) -> typer.Typer:
    """An application whose command `fail` raises."""
    app = typer.Typer(cls=Guarded, pretty_exceptions_enable=False)

    @app.command("fail")
    def fail() -> None:
        raise error

    @app.callback()
    def options(debug: bool = typer.Option(False, "--debug")) -> None:
        pass

    return app


NO_MEMORY = "receptance: there is not enough memory for this; try a smaller model, fewer tokens or --dtype bfloat16\n"
CASES = {
    "ours": (CheckpointError("a.pth is\n no checkpoint"), 2, "receptance: a.pth is no checkpoint\n"),
    "extra": (MissingExtraError("install receptance[plots]"), 2, "receptance: install receptance[plots]\n"),
    "missing": (
        FileNotFoundError(errno.ENOENT, "No such file", "a.pth"),
        2,
        "receptance: cannot use a.pth: no such file\n",
    ),
    "forbidden": (PermissionError(errno.EACCES, "Denied", "a"), 2, "receptance: cannot use a: denied\n"),
    "full": (
        OSError(errno.ENOSPC, "No space left on device", "a.pth"),
        2,
        "receptance: the disk is full, could not write a.pth; make room or write somewhere else\n",
    ),
    "no number": (OSError("the hub does not answer"), 2, "receptance: the hub does not answer\n"),
    "memory": (
        MemoryError(),
        2,
        NO_MEMORY,
    ),
    "memory of a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), 2, NO_MEMORY),
    "memory of an Apple GPU": (RuntimeError("MPS backend out of memory (allocated 1 GB)"), 2, NO_MEMORY),
    "memory under Windows": (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), 2, NO_MEMORY),
    "stopped": (KeyboardInterrupt(), 130, "receptance: stopped\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_users_error_is_one_sentence(name: str) -> None:
    error, code, said = CASES[name]
    result = CliRunner().invoke(raising(error), ["fail"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")


@pytest.mark.parametrize("arguments", [["fail", "--debug"], ["--debug", "fail"]])
def test_debug_lets_the_error_through(arguments: list[str]) -> None:
    result = CliRunner().invoke(raising(CheckpointError("broken")), arguments)
    assert isinstance(result.exception, CheckpointError)


@pytest.mark.parametrize("value", [*YES, "TRUE"])
def test_debug_by_environment(value: str) -> None:
    result = CliRunner().invoke(raising(CheckpointError("broken")), ["fail"], env={DEBUG: value})
    assert isinstance(result.exception, CheckpointError)


@pytest.mark.parametrize("value", ["", "0", "false", "abc"])
def test_what_is_no_yes_leaves_debug_off(value: str) -> None:
    from receptance.cli import app

    for command, arguments in ((raising(CheckpointError("broken")), ["fail"]), (app, ["info", "nothing.pth"])):
        result = CliRunner().invoke(command, arguments, env={DEBUG: value})
        assert result.exit_code == 2 and result.stderr.startswith("receptance: ")


@pytest.mark.parametrize("arguments", [["info", ""], ["verify", " "], ["convert", "", "a.pth"]], ids=" ".join)
def test_an_empty_name_is_not_the_current_folder(arguments: list[str]) -> None:
    from receptance.cli import app

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr == "receptance: the name of the model is empty; give a file, a folder or a hub id\n"


def test_debug_shows_the_traceback_of_the_real_command(tmp_path: Path) -> None:
    command = [*COMMAND, "info", str(tmp_path / "nothing.pth")]
    plain = subprocess.run(command, capture_output=True, text=True)
    assert plain.returncode == 2 and plain.stderr.startswith("receptance: ") and plain.stderr.count("\n") == 1
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert debug.returncode == 1 and debug.stderr.startswith("Traceback")


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("mat1 and mat2 cannot be multiplied")], ids=repr)
def test_a_fault_of_ours_is_not_hidden(error: Exception) -> None:
    assert CliRunner().invoke(raising(error), ["fail"]).exception is error


def test_pytorch_without_memory_is_known() -> None:
    """The real error, from more than any machine has."""
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**55, dtype=torch.uint8)
    result = CliRunner().invoke(raising(failure.value), ["fail"])
    assert (result.exit_code, result.stderr) == (2, NO_MEMORY)


def test_the_guard_loads_no_pytorch() -> None:
    code = "import receptance.cli.guard as g, sys; g.sentence(MemoryError()); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_sentence_is_never_empty() -> None:
    assert sentence(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["inof"], "Did you mean 'info'?"),
        (["info", "--jsn"], "--json"),
        (["convert", "a"], "DST"),
        (["verify", "--dtype", "int8", "x"], "bfloat16"),
        (["verify", "--length", "99999999999", "x"], "1048576"),
        (["verify", "--seed", "99999999999999999999999", "x"], "9223372036854775807"),
        (["verify", "--seed", "-1", "x"], "greater than or equal to 0"),
        (["quickstart", "--seconds", "inf"], "604800"),
        (["quickstart", "--seconds", "nan"], "--seconds"),
    ],
    ids=["command", "option", "missing", "choice", "length", "seed", "negative seed", "endless", "no number"],
)
def test_a_wrong_command_line_exits_2_with_a_hint(arguments: list[str], hint: str) -> None:
    from receptance.cli import app

    result = CliRunner().invoke(app, arguments, terminal_width=200)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["--version"], ["info"]])
def test_a_full_disk_behind_stdout(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("receptance: the disk is full") and result.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("arguments", [["--help"], ["info"]])
def test_a_reader_that_leaves(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


WAITING = """
import time, typer
from receptance.cli.guard import Guarded
app = typer.Typer(cls=Guarded)
@app.command("wait")
def wait():
    print("ready", flush=True)
    time.sleep(60)
@app.callback()
def options(): pass
app()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_is_130_and_one_word() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "receptance: stopped\n")
