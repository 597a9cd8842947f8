"""Where the peers' programs are: llama.cpp has an environment of its own, made by `make bench-peers`.

peers_python()                          # its interpreter, or None
quantize(source, "Q4_0", target)        # a .gguf by llama.cpp's own quantisation
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cpu_serve import ROOT

LLAMA = ROOT / "benchmarks" / "cpu_llama.py"
# Another interpreter can be named here; it is also what `--peers-python` sets.
VARIABLE = "PEERS_PYTHON"


def peers_python() -> Path | None:
    """The first interpreter that has llama-cpp-python: the named one, that of `make bench-peers`, this one."""
    named = os.environ.get(VARIABLE)
    candidates = [Path(named)] if named else [ROOT / "benchmarks" / ".venv" / "bin" / "python", Path(sys.executable)]
    return next((python for python in candidates if python.exists() and _has_llama(python)), None)


def _has_llama(python: Path) -> bool:
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('llama_cpp') is None)"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def llama_command(python: Path, model: Path, threads: int, *arguments: str) -> Sequence[str | Path]:
    """How the worker of cpu_llama.py is started."""
    return (python, LLAMA, model, "--threads", str(threads), *arguments)


def quantize(python: Path, source: Path, kind: str, target: Path, threads: int) -> None:
    """Write `source` quantised as `kind` ("Q8_0", "Q4_K_M", ...) to `target`."""
    partial = target.with_suffix(".partial")
    command = llama_command(python, source, threads, "--quantize", kind, str(partial))
    subprocess.run(command, check=True, capture_output=True)
    partial.rename(target)
