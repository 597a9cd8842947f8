"""GPU kernels in Triton: Python that is compiled for the GPU it runs on, when it first runs there.

Nothing here is imported or probed before a kernel is asked for; `refusal()` says why none can be had.
"""

from __future__ import annotations

import importlib
import shutil
import sysconfig
from pathlib import Path

import torch

__all__ = ["LEAST_SIDE", "refusal", "refuses_heads"]

# The least side of a matrix that a GPU multiplies, and the largest head whose tiles fit beside each other.
LEAST_SIDE, LARGEST_SIDE = 16, 128
LEAST_VERSION, LEAST_CAPABILITY = (3, 4), (8, 0)
_refusals: list[str | None] = []


def refusal() -> str | None:
    """Why no kernel of this package can be compiled on this machine, as a sentence; None where they can."""
    # Not `functools.cache`, of which torch.compile warns that it does not see it.
    if not _refusals:
        _refusals.append(_reason())
    return _refusals[0]


def _reason() -> str | None:
    try:
        found: str = importlib.import_module("triton").__version__
    except ImportError:
        return "Triton is not installed, which every PyTorch for CUDA or ROCm brings on Linux; pip install triton"
    if tuple(map(int, found.split(".")[:2])) < LEAST_VERSION:
        return f"its kernels need Triton 3.4, which PyTorch brings from 2.8 on, and this is {found}"
    if torch.version.cuda and torch.cuda.is_available() and torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        return "its kernels need a GPU of the Ampere generation or later"
    # Triton compiles a little C for each kernel's call, and looks for a compiler and headers as here.
    if not any(map(shutil.which, ("gcc", "clang"))):
        return "Triton needs a C compiler once, and there is none; install gcc"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    headers = Path(sysconfig.get_paths(scheme)["include"]) / "Python.h"
    if not headers.is_file():
        return f"Triton needs Python's headers once, and {headers} is missing; install python3-dev or the like"
    return None


def refuses_heads(size: int) -> str | None:
    """Why heads of this size have no kernel."""
    if LEAST_SIDE <= size <= LARGEST_SIDE and not size & (size - 1):
        return None
    return f"its kernels take heads of 16, 32, 64 and 128, not of {size}"
