"""Processes that each hold one engine for long, and compute only when they are asked.

    serve(lambda: Engine("model.pth"))                  # in the worker: answers lines on stdin until they end
    with Worker([python, script, model]) as worker:     # in the benchmark
        worker.ask("decode", num_tokens=64)             # what engine.decode(num_tokens=64) returns

An engine has these methods.  Only the standard library and NumPy are needed here, because peers live in environments of
their own.

    decode(num_tokens)      seconds for so many tokens, one after the other, from an empty state
    prefill(num_tokens)     seconds for so many at once, with the logits of the last one
    logits(tokens, whole)   logits [T, V] after each token, fed all at once or one by one
    about()                 versions, settings and bytes of weights that a token needs
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def tokens_to_read(num_tokens: int, vocab_size: int) -> list[int]:
    """The same tokens for every engine; no sampling is timed, so any will do."""
    found: list[int] = np.random.default_rng(0).integers(1, vocab_size, num_tokens).tolist()
    return found


def serve(make: Callable[[], object]) -> None:
    """Make the engine and answer requests until stdin ends; what the engine's libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = make()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": _packed(getattr(engine, request.pop("do"))(**request))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _packed(value: object) -> object:
    if not isinstance(value, np.ndarray):
        return value
    numbers = np.ascontiguousarray(value, np.float32)
    return {"shape": numbers.shape, "float32": base64.b64encode(numbers.tobytes()).decode()}


class Worker:
    """A process that serves an engine.  Its stderr goes to `log`.  Raises RuntimeError for what it cannot do."""

    def __init__(self, command: Sequence[str | Path], log: Path, threads: int, env: Mapping[str, str] | None = None):
        # Every library's threads are counted here, so that none takes more than its share.
        threads_of = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.name, self._log = " ".join(map(str, command[1:])), log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **threads_of, **(env or {})},
            )

    def ask(self, do: str, **arguments: object) -> Any:
        """What the engine's method `do` returns."""
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended by itself; see {self._log}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name} cannot {do}: {answer['error']}; see {self._log}")
        return _unpacked(answer["answer"])

    def close(self) -> None:
        """Let the process end."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict) or "float32" not in value:
        return value
    return np.frombuffer(base64.b64decode(value["float32"]), np.float32).reshape(value["shape"])
