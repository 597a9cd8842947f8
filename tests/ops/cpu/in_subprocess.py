"""A module run by a fresh Python under environment variables that Numba reads once.

run("tests.ops.cpu.recurrences_alone", NUMBA_THREADING_LAYER="workqueue")
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run(module: str, *arguments: str, timeout: float = 300, **environment: str) -> str:
    """What `python -m module` prints; fails where it fails, with all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{module} under {environment} ended with {done.returncode}\n{printed}"
    return done.stdout
