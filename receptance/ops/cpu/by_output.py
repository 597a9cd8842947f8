"""Products whose weights are stored by output: a weight that is loaded serves up to 4 rows of activations.

An output's terms are added in one order, whatever rows stand beside its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel
from .row_vectors import (
    add_rows,
    dot_rows,
    multiply_add_rows,
    scale_rows,
    splat_rows,
    store_rows,
    store_sums,
    zero_rows,
)
from .storage import FLOAT32, GROUP, INT8, TILE
from .vectors import LANES, bits, load, load_part, prefetch, size_of

__all__ = ["integer_outputs", "real_outputs"]

# How far ahead weights are asked for, in bytes: the processor's own guesses end with each page of 4 KiB.
AHEAD = 8192

# Tuples that stand for so many rows of activations at once.
ONE, FOUR = (0,), (0, 0, 0, 0)


@kernel
def real_outputs(kind: int, weights: int, x: Any, y: Any, start: int, stop: int) -> None:
    """Tiles start to before stop of y [B, out], with FLOAT32 or BFLOAT16 weights [out, in] at an address.

    x [B, in] and y contiguous float32.
    """
    first, end = start * TILE, min(stop * TILE, y.shape[1])
    if kind == FLOAT32:
        _real_outputs(np.float32, weights, x, y, first, end)
    else:
        _real_outputs(np.uint16, weights, x, y, first, end)


@kernel
def _real_outputs(dtype: Any, weights: int, x: Any, y: Any, start: int, stop: int) -> None:
    """Outputs start to before stop, with weights of float32 or uint16 (bfloat16)."""
    in_fours = x.shape[0] // 4 * 4
    for o in range(start, stop):
        for b in range(0, in_fours, 4):
            _real_output(dtype, weights, x, y, o, b, FOUR)
        for b in range(in_fours, x.shape[0]):
            _real_output(dtype, weights, x, y, o, b, ONE)


@kernel
def _real_output(dtype: Any, weights: int, x: Any, y: Any, o: int, b: int, rows: Any) -> None:
    """Output o of rows b, b + 1, ...: four sums of 16 lanes, so that no addition waits for the one before."""
    num_in, size = x.shape[1], size_of(dtype)
    stride, place, row = 4 * num_in, x.ctypes.data + 4 * num_in * b, weights + o * num_in * size
    first = second = third = fourth = zero_rows(rows)
    i = 0
    while i + 4 * LANES <= num_in:
        here, there = row + i * size, place + 4 * i
        for line in range(size):
            prefetch(here + AHEAD + 64 * line)
        first = multiply_add_rows(first, load(here, dtype), there, stride, None)
        second = multiply_add_rows(second, load(here + LANES * size, dtype), there + 64, stride, None)
        third = multiply_add_rows(third, load(here + 2 * LANES * size, dtype), there + 128, stride, None)
        fourth = multiply_add_rows(fourth, load(here + 3 * LANES * size, dtype), there + 192, stride, None)
        i += 4 * LANES
    while i < num_in:
        rest = min(num_in - i, LANES)
        first = multiply_add_rows(first, load_part(row + i * size, dtype, rest), place + 4 * i, stride, rest)
        i += LANES
    store_sums(
        add_rows(add_rows(first, second), add_rows(third, fourth)),
        y.ctypes.data + 4 * (b * y.shape[1] + o),
        4 * y.shape[1],
    )


@kernel
def integer_outputs(
    kind: int, weights: int, scales: int, xq: Any, sx: Any, sums: Any, y: Any, start: int, stop: int
) -> None:
    """Tiles start to before stop of y [B, out], with INT8 or INT4 weights and their scales at addresses.

    xq [B, in] int8, sx and sums [B, in/32] as `round_activations` gives them.
    """
    num_groups, in_fours = sx.shape[1], xq.shape[0] // 4 * 4
    weight_bytes = num_groups * GROUP * TILE // (1 if kind == INT8 else 2)
    for tile in range(start, stop):
        packed, scale = weights + tile * weight_bytes, scales + tile * num_groups * TILE * 2
        for b in range(0, in_fours, 4):
            _tile(kind, packed, scale, xq, sx, sums, y, tile, b, FOUR)
        for b in range(in_fours, xq.shape[0]):
            _tile(kind, packed, scale, xq, sx, sums, y, tile, b, ONE)


@kernel
def _tile(
    kind: int, packed: int, scale: int, xq: Any, sx: Any, sums: Any, y: Any, tile: int, b: int, rows: Any
) -> None:
    """The 16 outputs of a tile, a lane each, for rows b, b + 1, ..."""
    num_in, num_groups, num_out = xq.shape[1], sx.shape[1], y.shape[1]
    x, step, total_x = xq.ctypes.data + b * num_in, sx.ctypes.data, sums.ctypes.data
    step, total_x = step + 4 * b * num_groups, total_x + 4 * b * num_groups
    if kind == INT8:
        totals = _int8_sums(packed, scale, x, step, total_x, num_groups, rows)
    else:
        totals = _int4_sums(packed, scale, x, step, total_x, num_groups, rows)
    first = tile * TILE
    count = min(num_out - first, TILE)
    store_rows(totals, y.ctypes.data + 4 * (b * num_out + first), 4 * num_out, count)


@kernel
def _int8_sums(packed: int, scale: int, x: int, step: int, total_x: int, num_groups: int, rows: Any) -> Any:
    totals = zero_rows(rows)
    for g in range(num_groups):
        # Weights are stored with 128 added.
        dots = splat_rows(rows, total_x + 4 * g, 4 * num_groups, np.int32(-128))
        for _ in range(GROUP // 4):
            prefetch(packed + AHEAD)
            dots = dot_rows(dots, load(packed, np.uint32), x, num_groups * GROUP)
            packed, x = packed + 4 * TILE, x + 4
        totals = scale_rows(totals, dots, load(scale, np.uint16), step + 4 * g, 4 * num_groups)
        prefetch(scale + AHEAD // 16)
        scale += 2 * TILE
    return totals


@kernel
def _int4_sums(packed: int, scale: int, x: int, step: int, total_x: int, num_groups: int, rows: Any) -> Any:
    totals = zero_rows(rows)
    mask, low, high = np.int32(0x0F0F0F0F), np.int32(0), np.int32(4)
    for g in range(num_groups):
        # Weights are stored with 8 added.
        dots = splat_rows(rows, total_x + 4 * g, 4 * num_groups, np.int32(-8))
        for _ in range(GROUP // 8):
            prefetch(packed + AHEAD)
            words = load(packed, np.uint32)
            dots = dot_rows(dots, bits(words, low, mask), x, num_groups * GROUP)
            dots = dot_rows(dots, bits(words, high, mask), x + 4, num_groups * GROUP)
            packed, x = packed + 4 * TILE, x + 8
        totals = scale_rows(totals, dots, load(scale, np.uint16), step + 4 * g, 4 * num_groups)
        prefetch(scale + AHEAD // 8)
        scale += 2 * TILE
    return totals
