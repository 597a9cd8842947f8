"""The crew: every unit of a region is computed once, whoever is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from receptance.ops.cpu import atomics, crew
from receptance.ops.cpu.jit import c_function, free_kernel


def _count(address: int, start: int, stop: int, unit: int, end: int) -> None:
    """One more for the unit, and where it was asked for something else, one for the place before the first."""
    right = end == unit + 1 and stop == 7 and unit < start
    atomics.add(address + 8 * (unit + 1 if right else 0), np.int64(1))


@free_kernel
def _share_often(board: Any, worker: int, address: int, num_units: int, times: int) -> None:
    for _ in range(times):
        crew.share(board, worker, address, num_units, 7, num_units)


@free_kernel
def _offer_often(board: Any, worker: int, address: int, num_units: int, most: int, times: int) -> None:
    for _ in range(times):
        crew.offer(board, worker, address, num_units, 7, num_units, most)
        crew.withdraw(board)


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("num_units", [0, 1, 2, 13])
def test_each_unit_is_computed_once(num_units: int, num_threads: int) -> None:
    counts = np.zeros(num_units + 1, np.int64)
    with crew.crew(num_threads) as board:
        _share_often(board, c_function(_count, 5).address, counts.ctypes.data, np.int64(num_units), np.int64(300))
    assert counts.tolist() == [0] + [300] * num_units


@pytest.mark.parametrize("most", [0, 2, 100])
@pytest.mark.parametrize("num_threads", [1, 2, 8])
def test_what_is_offered_is_computed_at_most_once(num_threads: int, most: int) -> None:
    num_units, times = 13, 3000
    counts = np.zeros(num_units + 1, np.int64)
    worker = c_function(_count, 5).address
    with crew.crew(num_threads) as board:
        _offer_often(board, worker, counts.ctypes.data, np.int64(num_units), np.int64(most), np.int64(times))
        before = counts.copy()
        # What was withdrawn is at an end: none of it is counted to, or in, the next region.
        _share_often(board, worker, counts.ctypes.data, np.int64(num_units), np.int64(300))
    assert before[0] == 0 and before.max() <= times
    assert before.sum() == 0 if num_threads == 1 or most == 0 else before.sum() <= num_threads * most * times
    assert (counts - before).tolist() == [0] + [300] * num_units


def test_a_helper_waits_longer_than_short_vectors_take() -> None:
    """`AWAKE_SECONDS`, as a number of looks: one takes some nanoseconds, not a microsecond."""
    assert crew._patience() > crew.AWAKE_SECONDS / 1e-6
