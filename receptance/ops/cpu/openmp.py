"""Loops over blocks on PyTorch's own threads.

    run_blocks(kernel.address, job.ctypes.data, job.size, num_blocks)

Numba's threads are others than PyTorch's wherever each has loaded its own copy of OpenMP.  Then the ones wait for a
core that the others, which have nothing to do any more, do not leave for a while: after a matrix product a short loop
takes twice its time.  So the loop asks the OpenMP that PyTorch has loaded, and where that is not GNU's, Numba's.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types

from . import atomics
from .bits import array_at
from .jit import alone, c_function, parallel_kernel
from .lanes import intrinsic

__all__ = ["run_blocks"]

# Words of what the threads share; TAKEN counts the blocks that somebody has begun, in a cache line of its own.
FUNCTION, ADDRESS, SIZE, BLOCKS, TAKEN, NUM_WORDS = 0, 1, 2, 3, 16, 24


def run_blocks(function: int, address: int, size: int, blocks: int) -> None:
    """Call the C function at `function` with (address, size, block) for each block, on as many threads as PyTorch."""
    fork = _fork()
    if fork is None:
        with alone():
            _call_for_blocks(function, address, size, blocks)
        return
    shared = np.zeros(NUM_WORDS, np.int64)
    shared[: BLOCKS + 1] = function, address, size, blocks
    fork(_member().address, shared.ctypes.data, max(1, min(torch.get_num_threads(), blocks)), 0)


@cache
def _fork() -> Any:
    """`GOMP_parallel(function, argument, num_threads, flags)` of the library that PyTorch uses, or None."""
    installed = Path(torch.__file__).parent
    for place in sorted([*installed.glob("lib/libgomp*"), *installed.parent.glob("torch.libs/libgomp*")]):
        try:
            fork = ctypes.CDLL(str(place)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        fork.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        fork.restype = None
        return fork
    return None


@cache
def _member() -> Any:
    return c_function(_take_blocks, 1)


def _take_blocks(shared: int) -> None:
    """What each thread does: one block after the other, until all are taken."""
    words = array_at(shared, (NUM_WORDS,), np.int64)
    block = atomics.add(shared + 8 * TAKEN, np.int64(1))
    while block < words[BLOCKS]:
        _call(words[FUNCTION], words[ADDRESS], words[SIZE], block)
        block = atomics.add(shared + 8 * TAKEN, np.int64(1))


@parallel_kernel
def _call_for_blocks(function: int, address: int, size: int, blocks: int) -> None:
    for block in prange(blocks):
        _call(function, address, size, np.int64(block))


@intrinsic
def _call(context: Any, function: Any, address: Any, size: Any, block: Any) -> Any:
    """Call the C function of three int64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), (whole, whole, whole))
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate
