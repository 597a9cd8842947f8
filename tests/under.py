"""Some tests once more, in a process of their own with another environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT


def run_under(path: str | Path, chosen: str = "", timeout: float = 600, **environment: str) -> int:
    """Run the tests of a file, those that `-k chosen` picks, and return how many passed; none may fail.

    Its compiled kernels are its own where NUMBA_CACHE_DIR is given: the cache does not know of every setting.
    """
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen]
    command = [sys.executable, "-m", "pytest", str(path), *options]
    run = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout
    return int(passed[1])
