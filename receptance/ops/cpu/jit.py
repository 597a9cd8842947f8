"""How the kernels are compiled, and the one lock behind which those with a parallel loop run.

    @kernel                      # a function for other kernels to call: one thread
    @parallel_kernel             # with prange: call it as `with alone(): ...`
    address = c_function(f, 5)   # f(five int64), compiled once, to be called by address

Compiled code is kept in Numba's cache, one entry for each processor and version of the sources (`stamp.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch
from numba.core import event

from . import compiling
from .allocation import keep_freed_memory
from .stamp import stamp_kernels

stamp_kernels()
keep_freed_memory()

# Whatever is compiled takes and gives what Numba makes of it.
Compile = Callable[[Callable[..., Any]], Any]

# The compiler may regroup sums and fuse multiply-adds, but infinities keep their meaning: wkv4 relies on e^{-inf} = 0.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

config: Any = numba.config
# OpenMP shares its threads with PyTorch, so that a kernel after a matrix product starts at once.
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

kernel: Compile = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy")
parallel_kernel: Compile = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", parallel=True)
# Lets other threads of Python go on while it runs.
free_kernel: Compile = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", nogil=True)


def c_function(function: Callable[..., None], num_arguments: int) -> Any:
    """A function of so many int64 in C's calling convention; its `address` stays good as long as it is kept.

    What is called by address is compiled once; what another kernel calls by name is compiled again as a part of it.
    """
    signature = numba.void(*[numba.int64] * num_arguments)
    return numba.cfunc(signature, cache=True, fastmath=FASTMATH, error_model="numpy")(function)


class _Announcer(event.Listener):
    """Hears of every kernel that is compiled and not read from the cache."""

    def on_start(self, event: event.Event) -> None:
        compiling()

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())

# Under Numba's own thread pool two parallel regions at once end the process, and on shared cores they gain nothing.
_lock = threading.RLock()


@contextmanager
def alone() -> Iterator[int]:
    """The right to launch parallel kernels; gives the number of threads, which is PyTorch's."""
    with _lock:
        num_threads = min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)
        numba.set_num_threads(num_threads)
        yield num_threads
