"""Products whose weights have a row for each input: rows whose input is exactly 0 need not be read.

A few rows at a time are added to sums that lie in registers or in the cache, while later ones are asked for.  Every
output's terms are added one after the other in the order of the inputs, so that leaving zeros out changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .block_vectors import add_int4_block, add_int8_block, load_block, shrink, store_block
from .jit import kernel
from .storage import BLOCK, FLOAT32, GROUP, INT8
from .vectors import LANES, load, load_part, multiply, multiply_add, prefetch, room, size_of, splat, store

__all__ = ["add_inputs"]

# Inputs whose weights the rows of a batch read in turn, so that they stay in a core's cache.
CHUNK = 512
# Rows of integers that are added to a block of sums before these are put back; as many later ones are asked for.
ROWS = 16
# Weights of floats are asked for this far ahead of their use, in bytes, and at most ROWS inputs ahead.
AHEAD = 4096
# Places in a list of inputs that is read ahead, and four at a time.
PLACES = CHUNK + ROWS + 4
INPUT_BYTES, FACTOR_BYTES = 8 * PLACES, 4 * PLACES
# Outputs whose scales, 16 for each of ROWS rows, are multiplied by the activations at a time.
SCALED_OUTPUTS = LANES * GROUP
SCALED_BYTES = 4 * LANES * ROWS


@kernel
def add_inputs(
    integers: Any,
    kind: int,
    weights: int,
    scales: int,
    x: Any,
    sums: Any,
    num_out: int,
    start: int,
    stop: int,
    skip: bool,
) -> None:
    """sums [B, width] float32 = the products of inputs start to before stop of x [B, in] with their rows of weights.

    integers: None for FLOAT32 and BFLOAT16, then the others' code is not compiled; kind: a format, without BY_INPUT;
    weights, scales: addresses; skip: read no row whose input is 0.
    """
    sums[:] = 0
    inputs = array_at(room(INPUT_BYTES), (PLACES,), np.int64)
    factors = array_at(room(FACTOR_BYTES), (PLACES,), np.float32)
    for first in range(start, stop, CHUNK):
        for b in range(x.shape[0]):
            count = _list_inputs(x[b], first, min(first + CHUNK, stop), skip, inputs, factors)
            if integers is None:
                _add_reals(kind, weights, inputs, factors, count, sums[b], num_out)
            else:
                _add_integers(kind, weights, scales, inputs, factors, count, sums[b])


@kernel
def _list_inputs(x: Any, start: int, stop: int, skip: bool, inputs: Any, factors: Any) -> int:
    """List the inputs that count and their activations; returns their number.

    More follow, which repeat the last with an activation of 0, for whoever reads in fours and ahead.
    """
    count = 0
    for j in range(start, stop):
        # Without a branch: whether an input is 0 cannot be foreseen.
        inputs[count], factors[count] = j, x[j]
        count += 1 if x[j] != 0 or not skip else 0
    last = inputs[max(count - 1, 0)]
    for n in range(count, count + ROWS + 4):
        inputs[n], factors[n] = last, 0
    return count


@kernel
def _rows(address: int, row_bytes: int, inputs: Any, n: int) -> Any:
    """Where the rows of four listed inputs start."""
    first, second = address + inputs[n] * row_bytes, address + inputs[n + 1] * row_bytes
    return first, second, address + inputs[n + 2] * row_bytes, address + inputs[n + 3] * row_bytes


@kernel
def _rows_ahead(address: int, row_bytes: int, inputs: Any, n: int) -> Any:
    """The rows to ask for while those from n on are added."""
    distance = min(max(AHEAD // row_bytes // 4 * 4, 4), ROWS)
    return _rows(address, row_bytes, inputs, n + distance)


@kernel
def _add_reals(kind: int, weights: int, inputs: Any, factors: Any, count: int, sums: Any, num_out: int) -> None:
    """To sums all listed rows of FLOAT32 or BFLOAT16."""
    for n in range(0, count, 4):
        if kind == FLOAT32:
            _add_four(np.float32, weights, inputs, factors, n, sums, num_out)
        else:
            _add_four(np.uint16, weights, inputs, factors, n, sums, num_out)


@kernel
def _add_four(dtype: Any, weights: int, inputs: Any, factors: Any, n: int, sums: Any, num_out: int) -> None:
    """To sums four listed rows of float32 or, for uint16, bfloat16."""
    size, whole = size_of(dtype), num_out // LANES * LANES
    i, j, k, m = _rows(weights, num_out * size, inputs, n)
    ahead = _rows_ahead(weights, num_out * size, inputs, n)
    a, b, c, d = splat(factors[n]), splat(factors[n + 1]), splat(factors[n + 2]), splat(factors[n + 3])
    for o in range(0, whole, LANES):
        at, out = o * size, sums.ctypes.data + 4 * o
        for row in ahead:
            prefetch(row + at)
        total = multiply_add(load(i + at, dtype), a, load(out, np.float32))
        total = multiply_add(load(j + at, dtype), b, total)
        total = multiply_add(load(k + at, dtype), c, total)
        store(out, multiply_add(load(m + at, dtype), d, total))
    if whole < num_out:
        # The sums are padded, the weights are not.
        at, out, rest = whole * size, sums.ctypes.data + 4 * whole, num_out - whole
        total = multiply_add(load_part(i + at, dtype, rest), a, load(out, np.float32))
        total = multiply_add(load_part(j + at, dtype, rest), b, total)
        total = multiply_add(load_part(k + at, dtype, rest), c, total)
        store(out, multiply_add(load_part(m + at, dtype, rest), d, total))


@kernel
def _add_integers(kind: int, weights: int, scales: int, inputs: Any, factors: Any, count: int, sums: Any) -> None:
    """To sums all listed rows of INT8 or INT4."""
    width = sums.shape[0]
    block_bytes = BLOCK if kind == INT8 else BLOCK // 2
    row_bytes = width // BLOCK * block_bytes
    scaled = room(SCALED_BYTES)
    for n in range(0, count, ROWS):
        stop = min(n + ROWS, count)
        _ask_for_scales(scales, width, inputs, n + ROWS, stop + ROWS)
        for block in range(width // BLOCK):
            column = block * BLOCK % SCALED_OUTPUTS // GROUP
            if column == 0:
                _multiply_scales(kind, scales, width, inputs, factors, n, stop, block * BLOCK // GROUP, scaled)
            place, out = weights + block * block_bytes, sums.ctypes.data + 4 * BLOCK * block
            if kind == INT8:
                _add_int8_rows(place, row_bytes, inputs, n, stop, scaled + 4 * column, out)
            else:
                _add_int4_rows(place, row_bytes, inputs, n, stop, scaled + 4 * column, out)


@kernel
def _ask_for_scales(scales: int, width: int, inputs: Any, start: int, stop: int) -> None:
    scale_bytes = width // GROUP * 2
    for n in range(start, stop):
        for at in range(0, scale_bytes, 64):
            prefetch(scales + inputs[n] * scale_bytes + at)


@kernel
def _multiply_scales(
    kind: int, scales: int, width: int, inputs: Any, factors: Any, start: int, stop: int, group: int, scaled: int
) -> None:
    """[stop - start, 16] float32: the scales of listed rows from a group on, times their activations."""
    groups = width // GROUP
    count = min(LANES, groups - group)
    unit = splat(np.float32(1)) if kind == INT8 else shrink()
    for n in range(start, stop):
        place = scales + 2 * (inputs[n] * groups + group)
        scale = multiply(load_part(place, np.uint16, count), splat(factors[n]))
        store(scaled + 4 * LANES * (n - start), multiply(scale, unit))


@kernel
def _add_int8_rows(weights: int, row_bytes: int, inputs: Any, start: int, stop: int, scaled: int, out: int) -> None:
    totals = load_block(out)
    for n in range(start, stop):
        prefetch(weights + inputs[n + ROWS] * row_bytes)
        prefetch(weights + inputs[n + ROWS] * row_bytes + 64)
        totals = add_int8_block(totals, weights + inputs[n] * row_bytes, scaled + 4 * LANES * (n - start))
    store_block(totals, out)


@kernel
def _add_int4_rows(weights: int, row_bytes: int, inputs: Any, start: int, stop: int, scaled: int, out: int) -> None:
    totals = load_block(out)
    for n in range(start, stop):
        prefetch(weights + inputs[n + ROWS] * row_bytes)
        totals = add_int4_block(totals, weights + inputs[n] * row_bytes, scaled + 4 * LANES * (n - start))
    store_block(totals, out)
