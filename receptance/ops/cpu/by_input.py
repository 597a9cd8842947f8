"""Products whose weights have a row for each input: rows whose input is exactly 0 need not be read.

Four rows at a time are added to sums that lie in the cache, while later ones are asked for.  Every output's terms are
added one after the other in the order of the inputs, so that leaving zeros out changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .jit import kernel
from .storage import BFLOAT16, BLOCK, FLOAT32, GROUP, INT8
from .vectors import (
    LANES,
    lane,
    load,
    load_part,
    minus,
    multiply,
    multiply_add,
    nibble,
    prefetch,
    room,
    size_of,
    splat,
    store,
)

__all__ = ["add_inputs"]

# Inputs whose weights the rows of a batch read in turn, so that they stay in a core's cache.
CHUNK = 512
# Weights are asked for this far ahead of their use, in bytes, and at most so many inputs ahead.
AHEAD, MOST_AHEAD = 4096, 16
# Places in a list of inputs that is read in fours.
PLACES = CHUNK + MOST_AHEAD + 4
INPUT_BYTES, FACTOR_BYTES = 8 * PLACES, 4 * PLACES


@kernel
def add_inputs(
    kind: int, weights: int, scales: int, x: Any, sums: Any, num_out: int, start: int, stop: int, skip: bool
) -> None:
    """sums [B, width] float32 = the products of inputs start to before stop of x [B, in] with their rows of weights.

    kind: a format, without BY_INPUT; weights, scales: addresses; skip: read no row whose input is 0.
    """
    sums[:] = 0
    inputs = array_at(room(INPUT_BYTES), (PLACES,), np.int64)
    factors = array_at(room(FACTOR_BYTES), (PLACES,), np.float32)
    for first in range(start, stop, CHUNK):
        for b in range(x.shape[0]):
            count = _list_inputs(x[b], first, min(first + CHUNK, stop), skip, inputs, factors)
            for n in range(0, count, 4):
                if kind == FLOAT32:
                    _add_real(np.float32, weights, inputs, factors, n, sums[b], num_out)
                elif kind == BFLOAT16:
                    _add_real(np.uint16, weights, inputs, factors, n, sums[b], num_out)
                elif kind == INT8:
                    _add_int8(weights, scales, inputs, factors, n, sums[b])
                else:
                    _add_int4(weights, scales, inputs, factors, n, sums[b])


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
    for n in range(count, count + MOST_AHEAD + 4):
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
    distance = min(max(AHEAD // row_bytes // 4 * 4, 4), MOST_AHEAD)
    return _rows(address, row_bytes, inputs, n + distance)


@kernel
def _add_real(dtype: Any, weights: int, inputs: Any, factors: Any, n: int, sums: Any, num_out: int) -> None:
    """To sums the listed rows of float32 or, for uint16, bfloat16."""
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
def _scaled(scales: int, width: int, row: int, factor: float, block: int) -> Any:
    """An activation times the scales of a block of its row: four lanes, one for each group."""
    place = scales + 2 * (row * (width // GROUP) + block * (BLOCK // GROUP))
    return multiply(load_part(place, np.uint16, BLOCK // GROUP), splat(factor))


@kernel
def _all_scaled(scales: int, width: int, inputs: Any, factors: Any, n: int, block: int) -> Any:
    """`_scaled` for four listed inputs."""
    return (
        _scaled(scales, width, inputs[n], factors[n], block),
        _scaled(scales, width, inputs[n + 1], factors[n + 1], block),
        _scaled(scales, width, inputs[n + 2], factors[n + 2], block),
        _scaled(scales, width, inputs[n + 3], factors[n + 3], block),
    )


@kernel
def _ask_for_scales(scales: int, width: int, inputs: Any, n: int) -> None:
    scale_bytes = width // GROUP * 2
    for row in _rows_ahead(scales, scale_bytes, inputs, n):
        for at in range(0, scale_bytes, 64):
            prefetch(row + at)


@kernel
def _int8(place: int) -> Any:
    return minus(load(place, np.uint8), np.int32(128))


@kernel
def _add_int8(weights: int, scales: int, inputs: Any, factors: Any, n: int, sums: Any) -> None:
    """To sums the listed rows of INT8."""
    width = sums.shape[0]
    i, j, k, m = _rows(weights, width, inputs, n)
    ahead = _rows_ahead(weights, width, inputs, n)
    _ask_for_scales(scales, width, inputs, n)
    for block in range(width // BLOCK):
        for row in ahead:
            prefetch(row + block * BLOCK)
            prefetch(row + block * BLOCK + 64)
        a, b, c, d = _all_scaled(scales, width, inputs, factors, n, block)
        for part in range(BLOCK // LANES):
            o, group = block * BLOCK + part * LANES, part * LANES // GROUP
            out = sums.ctypes.data + 4 * o
            total = multiply_add(_int8(i + o), lane(a, group), load(out, np.float32))
            total = multiply_add(_int8(j + o), lane(b, group), total)
            total = multiply_add(_int8(k + o), lane(c, group), total)
            store(out, multiply_add(_int8(m + o), lane(d, group), total))


@kernel
def _add_int4(weights: int, scales: int, inputs: Any, factors: Any, n: int, sums: Any) -> None:
    """To sums the listed rows of INT4: part n of a block is in the n-th four bits of its 16 words."""
    width = sums.shape[0]
    here, ahead = _rows(weights, width // 2, inputs, n), _rows_ahead(weights, width // 2, inputs, n)
    _ask_for_scales(scales, width, inputs, n)
    for block in range(width // BLOCK):
        for row in ahead:
            prefetch(row + block * BLOCK // 2)
        a, b, c, d = _all_scaled(scales, width, inputs, factors, n, block)
        at = block * BLOCK // 2
        i, j = load(here[0] + at, np.uint32), load(here[1] + at, np.uint32)
        k, m = load(here[2] + at, np.uint32), load(here[3] + at, np.uint32)
        for part in range(BLOCK // LANES):
            out, group = sums.ctypes.data + 4 * (block * BLOCK + part * LANES), part * LANES // GROUP
            total = multiply_add(nibble(i, part), lane(a, group), load(out, np.float32))
            total = multiply_add(nibble(j, part), lane(b, group), total)
            total = multiply_add(nibble(k, part), lane(c, group), total)
            store(out, multiply_add(nibble(m, part), lane(d, group), total))
