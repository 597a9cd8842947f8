"""The one place where an error becomes what a user reads: one sentence on stderr and an exit code.

    exit code 0    all well            1    the answer is "no" (verify), or the reader of our output went away
              2    wrong input         130  stopped by Ctrl-C

An error that is none of these is a fault of ours and shows its traceback; `--debug` or RECEPTANCE_DEBUG=1 always does.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer.core

from ..display import printable
from ..errors import ReceptanceError

WRONG_INPUT, STOPPED, READER_GONE = 2, 130, 1
DEBUG = "RECEPTANCE_DEBUG"
YES = ("1", "true", "yes", "on")
# What PyTorch says in a plain RuntimeError: on the CPU under Linux and macOS, under Windows, on Apple's GPU.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class Guarded(typer.core.TyperGroup):
    """A group of commands that lets no foreseeable error out as a traceback, and takes `--debug` in any position."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        if "--debug" in own:
            args.remove("--debug")
            args.insert(0, "--debug")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with one_sentence(debug=bool(ctx.params.get("debug")) or debug_by_environment()):
            return super().invoke(ctx)


def debug_by_environment() -> bool:
    """Whether RECEPTANCE_DEBUG says yes; anything else that it may hold is a no."""
    return os.environ.get(DEBUG, "").strip().lower() in YES


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """Turn the errors that a user can cause into a sentence and `SystemExit`; with `debug` let them through."""
    try:
        yield
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(READER_GONE)
    except KeyboardInterrupt:
        if debug:
            raise
        _say("stopped")
        sys.exit(STOPPED)
    except Exception as error:
        if debug or not (isinstance(error, (ReceptanceError, OSError)) or is_out_of_memory(error)):
            raise
        _say(sentence(error))
        sys.exit(WRONG_INPUT)


def finish() -> None:
    """Write out what stdout still holds; exits where that fails, as a full disk may show only now."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(READER_GONE)
    except OSError as error:
        _drop_stdout()
        _say(sentence(error))
        sys.exit(WRONG_INPUT)


def _drop_stdout() -> None:
    """Python flushes stdout once more at exit and would complain about the same failure again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def sentence(error: BaseException) -> str:
    """What went wrong, for a user, on one line; a name out of a file that is part of it may hold anything."""
    return printable(_words(error)) or type(error).__name__


def _words(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "there is not enough memory for this; try a smaller model, fewer tokens or --dtype bfloat16"
    if not isinstance(error, OSError) or isinstance(error, ReceptanceError):
        return str(error)
    path = error.filename2 or error.filename
    place = f" {path}" if path is not None else ""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"the disk is full, could not write{place}; make room or write somewhere else"
    if error.errno is None:
        return str(error)
    return f"cannot use{place or ' a file'}: {(error.strerror or str(error)).lower()}"


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own error or one of PyTorch's, which are told by their names so that PyTorch need not be loaded."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in {kind.__name__ for kind in type(error).__mro__}:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def _say(text: str) -> None:
    print(f"receptance: {text}", file=sys.stderr)
