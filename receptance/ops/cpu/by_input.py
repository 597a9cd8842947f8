"""Products whose weights have a row for each input: rows whose input is exactly 0 need not be read.

A panel of outputs adds up in registers while its rows stream by.  Every output's terms are added one after the other in
the order of the inputs, so that leaving zeros out changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .jit import kernel
from .panel_vectors import add_row, has_scales, load_panel, row_bytes, store_panel
from .storage import FLOAT32, GROUP, INT8, PANEL
from .vectors import prefetch, room

__all__ = ["multiply_panel"]

# How far ahead weights are asked for, in bytes: at most LIST_END rows.
AHEAD = 8192
# Inputs whose weights the rows of a batch read in turn, so that they stay in a core's cache.
CHUNK = 512
# Rows of a batch whose sums are kept at a time.
MOST_ROWS = 32
SUMS_BYTES, PLACES_BYTES = 4 * PANEL * MOST_ROWS, 8 * MOST_ROWS
SCALE_BYTES = 2 * PANEL // GROUP


@kernel
def multiply_panel(
    integers: Any, kind: int, weights: int, scales: int, listed: Any, num_in: int, y: Any, panel: int
) -> None:
    """128 outputs of y [B, out] float32, or what there is of the last ones, from activations as `listed_at` has them.

    integers: None for FLOAT32 and BFLOAT16, then the others' code is not compiled; kind: a format, without BY_INPUT;
    weights, scales: addresses of the whole matrix.
    """
    first = panel * num_in
    scale = scales + first * SCALE_BYTES
    for low in range(0, y.shape[0], MOST_ROWS):
        high = min(low + MOST_ROWS, y.shape[0])
        if integers is None:
            if kind == FLOAT32:
                _multiply_rows(np.float32, weights, scale, first, listed, num_in, y, panel, low, high)
            else:
                _multiply_rows(np.uint16, weights, scale, first, listed, num_in, y, panel, low, high)
        elif kind == INT8:
            _multiply_rows(np.uint8, weights, scale, first, listed, num_in, y, panel, low, high)
        else:
            _multiply_rows(np.uint32, weights, scale, first, listed, num_in, y, panel, low, high)


@kernel
def _multiply_rows(
    dtype: Any, weights: int, scales: int, first: int, listed: Any, num_in: int, y: Any, panel: int, low: int, high: int
) -> None:
    """Rows low to before high, at most MOST_ROWS, of the panel whose first input is row `first` of the weights."""
    inputs, factors, counts = listed
    place = weights + first * row_bytes(dtype)
    sums = array_at(room(SUMS_BYTES), (MOST_ROWS, PANEL), np.float32)
    sums[:] = 0
    begun = array_at(room(PLACES_BYTES), (MOST_ROWS,), np.int64)
    begun[:] = 0
    chunk = CHUNK if high - low > 1 else num_in
    for end in range(chunk, num_in + chunk, chunk):
        for b in range(low, high):
            start, stop = begun[b - low], _first_from(inputs[b], begun[b - low], np.int64(counts[b]), end)
            _add_rows(dtype, place, scales, inputs[b], factors[b], start, stop, sums[b - low].ctypes.data)
            begun[b - low] = stop
    rest = min(y.shape[1] - panel * PANEL, PANEL)
    for b in range(low, high):
        out, total = y[b, panel * PANEL : panel * PANEL + rest], sums[b - low]
        for o in range(rest):
            out[o] = total[o]


@kernel
def _first_from(inputs: Any, start: int, stop: int, least: int) -> int:
    """Of the places from start to stop, the first whose input is `least` or more; inputs rise."""
    while start < stop:
        middle = (start + stop) // 2
        if inputs[middle] < least:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def _add_rows(
    dtype: Any, weights: int, scales: int, inputs: Any, factors: Any, start: int, stop: int, out: int
) -> None:
    """To 128 sums at an address the listed inputs from start to before stop."""
    size = row_bytes(dtype)
    ahead = AHEAD // size
    totals = load_panel(out)
    for n in range(start, stop):
        row, later = np.int64(inputs[n]), np.int64(inputs[n + ahead])
        for line in range(size // 64):
            prefetch(weights + later * size + 64 * line)
        if has_scales(dtype):
            prefetch(scales + later * SCALE_BYTES)
        totals = add_row(totals, weights + row * size, scales + row * SCALE_BYTES, factors[n], dtype)
    store_panel(totals, out)
