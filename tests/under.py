"""A fresh Python under another environment: Numba reads its own variables once.

run_tests("tests/runtime/test_step.py", "two_threads", NUMBA_THREADING_LAYER="workqueue")
run_module("tests.ops.cpu.recurrences_alone", NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=folder)

The cache of kernels does not know of every setting: where one changes the code, NUMBA_CACHE_DIR gives another one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT


def run_tests(path: str | Path, chosen: str = "", timeout: float = 600, **environment: str) -> int:
    """Run the tests of a file, those that `-k chosen` picks, and return how many passed; none may fail."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen]
    printed = run_module("pytest", str(path), *options, timeout=timeout, **environment)
    passed = re.search(r"(\d+) passed", printed)
    assert passed, printed
    return int(passed[1])


def run_module(module: str, *arguments: str, timeout: float = 300, **environment: str) -> str:
    """What `python -m module` prints; fails where it fails, with the end of all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    printed = (done.stdout + done.stderr)[-6000:]
    assert done.returncode == 0, f"{module} under {environment} ended with {done.returncode}\n{printed}"
    return done.stdout
