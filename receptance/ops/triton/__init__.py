"""GPU kernels in Triton: Python that is compiled for the GPU it runs on, when it first runs there.

Nothing here is imported or probed before a kernel is asked for; `refusal()` says why none can be had.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["LEAST_SIDE", "refusal", "refuses_heads"]

# The least side of a matrix that a GPU multiplies.
LEAST_SIDE = 16
LEAST_VERSION = (3, 3)
_refusals: list[str | None] = []


def refusal() -> str | None:
    """Why no kernel of this package can be compiled on this machine, as a sentence; None where they can."""
    # Not `functools.cache`, of which torch.compile warns that it does not see it.
    if not _refusals:
        _refusals.append(_reason())
    return _refusals[0]


def _reason() -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed, which every PyTorch for CUDA or ROCm brings on Linux; pip install triton"
    found = version("triton")
    if tuple(map(int, found.split(".")[:2])) < LEAST_VERSION:
        return f"its kernels need Triton 3.3, which PyTorch brings from 2.7 on, and this is {found}"
    # Triton compiles a little C for each kernel's call.
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "Triton needs a C compiler once, and there is none; install gcc"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not headers.is_file():
        return f"Triton needs Python's headers once, and {headers} is missing; install python3-dev or the like"
    return None


def refuses_heads(size: int) -> str | None:
    """Why heads of this size have no kernel."""
    if size >= LEAST_SIDE and not size & (size - 1):
        return None
    return f"its kernels take heads of 16, 32, 64, 128 ..., not of {size}"
