"""Threads that take part in the regions of a step without ever being waited for.

A step has dozens of parallel regions of some ten microseconds.  A pool that ends each of them at a barrier stands still
whenever one of its threads does not get a core.  Here the thread that computes the step publishes a region as a number
of units, takes units itself until none is left, and waits for nothing but units that somebody has begun: a thread that
sleeps, or that another program keeps from its core, is not missed.

    with crew(num_threads) as board:     # wakes the helpers
        a_step(board, ...)               # a kernel, which calls share(board, ...), or offer and withdraw
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types

from . import atomics
from .bits import call_address
from .features import has
from .jit import free_kernel, kernel
from .lanes import call, intrinsic

__all__ = ["crew", "offer", "run", "share", "withdraw"]

# Where things stand on the board, int64 each; what different threads write lies in different cache lines.
LINE = 16
DONE, WORKER, ARGUMENT, START, STOP, NUM_UNITS, NUM_QUEUES, TICKETS = 0, 16, 17, 18, 19, 20, 21, 32
# Each thread has a queue of units that lie side by side, and takes from the others' when its own is empty.
MOST_QUEUES = 64
BOARD_SIZE = TICKETS + LINE * MOST_QUEUES
# A queue's ticket holds the unit at its end in the upper half, and the next one in the lower half.
HALF = 32
LOWER = 2**HALF - 1
# For how long a helper looks for work before it goes to sleep: longer than any of the vectors between regions take.
AWAKE_SECONDS = 2e-4


@intrinsic
def _pause(context: Any) -> Any:
    """Leave the core's other work a moment, between two looks."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if has("sse2"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def share(board: Any, worker: int, argument: int, start: int, stop: int, num_units: int) -> None:
    """Have worker(argument, start, stop, unit, unit + 1) called for each unit, by whoever is there.

    Returns when all are done.  worker is the address of a C function of five int64.
    """
    address = np.int64(board.ctypes.data)
    offer(board, worker, argument, start, stop, num_units, num_units)
    while _take_unit(board, address, 0):
        pass
    while atomics.read(address + 8 * DONE) < num_units:
        _pause()


@kernel
def offer(board: Any, worker: int, argument: int, start: int, stop: int, num_units: int, most: int) -> None:
    """As `share`, but without taking part: the helpers go on until `withdraw`, which has to follow.

    At most so many units of each queue are computed.
    """
    address = np.int64(board.ctypes.data)
    board[WORKER], board[ARGUMENT], board[START], board[STOP] = worker, argument, start, stop
    board[NUM_UNITS] = num_units
    atomics.write(address + 8 * DONE, np.int64(0))
    for queue in range(board[NUM_QUEUES]):
        first = _first(board, queue)
        end = min(_first(board, queue + 1), first + most)
        atomics.write(_ticket(address, queue), end << HALF | first)


@kernel
def withdraw(board: Any) -> None:
    """Let no more units be begun, and wait for those that were."""
    address, begun = np.int64(board.ctypes.data), np.int64(0)
    for queue in range(board[NUM_QUEUES]):
        ticket = atomics.exchange(_ticket(address, queue), np.int64(0))
        begun += min(ticket & LOWER, ticket >> HALF) - _first(board, queue)
    while atomics.read(address + 8 * DONE) < begun:
        _pause()


@kernel
def _ticket(address: int, queue: int) -> int:
    return address + 8 * (TICKETS + LINE * queue)


@kernel
def _first(board: Any, queue: int) -> int:
    """The first unit of a queue."""
    return queue * board[NUM_UNITS] // board[NUM_QUEUES]  # type: ignore[no-any-return]


@kernel
def _take_unit(board: Any, address: int, own: int) -> bool:
    """Compute the next unit of the region on the board, if there is one: of the own queue, or else of another."""
    num_queues = board[NUM_QUEUES]
    for distance in range(num_queues):
        place = _ticket(address, (own + distance) % num_queues)
        ticket = atomics.read(place)
        if (ticket & LOWER) >= (ticket >> HALF):
            continue
        # Another thread may have taken it in between; the end is that of the very queue that we get a unit of.
        ticket = atomics.add(place, np.int64(1))
        unit = ticket & LOWER
        if unit < (ticket >> HALF):
            call_address(board[WORKER], board[ARGUMENT], board[START], board[STOP], unit, unit + 1)
            atomics.add(address + 8 * DONE, np.int64(1))
            return True
    return False


@free_kernel
def _help(board: Any, own: int, patience: int) -> None:
    """Take units, of the own queue first, until there have been none for a while."""
    address = np.int64(board.ctypes.data)
    idle = 0
    while idle < patience:
        if _take_unit(board, address, own):
            idle = 0
        else:
            _pause()
            idle += 1


@cache
def _patience() -> int:
    """How many looks take `AWAKE_SECONDS`."""
    board, looks, fastest = np.zeros(BOARD_SIZE, np.int64), 10_000, float("inf")
    board[NUM_QUEUES] = 1
    for _ in range(3):
        start = time.perf_counter()
        _help(board, np.int64(0), looks)
        fastest = min(fastest, time.perf_counter() - start)
    return int(looks * AWAKE_SECONDS / fastest) + 1


class _Helper(threading.Thread):
    """A thread that sleeps until `wake`, then helps until there is nothing to do for a while."""

    def __init__(self, board: Any, own: int, patience: int) -> None:
        super().__init__(daemon=True, name="receptance-helper")
        self._board, self._own, self._patience = board, np.int64(own), patience
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """It may be awake still; then it looks once more before it sleeps."""
        if self._asleep.locked():
            self._asleep.release()

    def run(self) -> None:
        while True:
            self._asleep.acquire()
            _help(self._board, self._own, self._patience)


@free_kernel
def _share(board: Any, worker: int, argument: int, num_units: int) -> None:
    share(board, worker, argument, 0, 0, num_units)


def run(worker: int, argument: int, num_units: int) -> None:
    """`share` for Python, with as many threads as PyTorch has."""
    with crew(torch.get_num_threads()) as board:
        _share(board, worker, argument, num_units)


_board = np.zeros(BOARD_SIZE, np.int64)
_helpers: list[_Helper] = []
# There is one board: two steps at once would gain nothing on shared cores.
_lock = threading.Lock()


@contextmanager
def crew(num_threads: int) -> Iterator[Any]:
    """The board, for the calling thread alone, with num_threads - 1 helpers awake."""
    with _lock:
        num_threads = min(num_threads, MOST_QUEUES)
        _board[NUM_QUEUES] = num_threads
        while len(_helpers) < num_threads - 1:
            # Compiled here: a helper ends with the process, perhaps before what it compiled is kept.
            _helpers.append(_Helper(_board, len(_helpers) + 1, _patience()))
            _helpers[-1].start()
        for helper in _helpers[: num_threads - 1]:
            helper.wake()
        yield _board


def _begin_anew() -> None:
    """In a forked process there are no threads but one, and whoever had the lock is gone."""
    global _lock
    _lock = threading.Lock()
    _helpers.clear()
    _board[:] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
