"""Weights out of their packed form, as fast as memory takes them: for matrix products with many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from .bits import array_at, bfloat16, bits_of_bfloat16
from .jit import alone, kernel, parallel_kernel
from .storage import BY_INPUT, GROUP, INT8, PANEL, TILE
from .vectors import LANES, bits, load, minus, multiply, splat, store, store_transposed

__all__ = ["dequantize"]


def dequantize(
    kind: int,
    weights: Tensor,
    scales: Tensor | None,
    num_out: int,
    num_in: int,
    dtype: torch.dtype,
    rows: tuple[int, int] | None = None,
) -> Tensor:
    """The weight [out, in] in float32 or bfloat16; with `rows` only those from the first to before the second.

    weights and scales as stored; scales None for formats that have none.
    """
    start, stop = rows or (0, num_out)
    if scales is None:
        whole = weights.view(-1, num_in, PANEL).mT.flatten(0, 1) if kind >= BY_INPUT else weights.view(num_out, num_in)
        return whole[start:stop].to(dtype).contiguous()
    result = torch.empty(stop - start, num_in, dtype=dtype)
    narrow = dtype == torch.bfloat16
    singles = np.empty((0, 0), np.float32) if narrow else result.numpy()
    halves = result.view(torch.uint16).numpy() if narrow else np.empty((0, 0), np.uint16)
    with alone():
        _unpack(kind, weights.data_ptr(), scales.data_ptr(), num_out, num_in, start, stop, singles, halves)
    return result


@parallel_kernel
def _unpack(
    kind: int,
    weights: int,
    scales: int,
    num_out: int,
    num_in: int,
    start: int,
    stop: int,
    singles: Any,
    halves: Any,
) -> None:
    """Outputs start to before stop, to singles [rows, in] float32 or, where that is empty, halves [rows, in] uint16."""
    first = start // TILE
    for number in prange((stop + TILE - 1) // TILE - first):
        tile, values = first + number, np.zeros((GROUP, TILE), np.float32)
        place = values.ctypes.data
        for group in range((num_in + GROUP - 1) // GROUP):
            if kind < BY_INPUT:
                _tile_by_output(kind, weights, scales, num_in // GROUP, tile, group, place)
            else:
                _tile_by_input(kind, weights, scales, num_in, tile, group, place)
            whole = start <= tile * TILE and (tile + 1) * TILE <= stop and (group + 1) * GROUP <= num_in
            row, column = tile * TILE - start, group * GROUP
            if not whole:
                _copy_part(values, singles, halves, row, column)
            elif halves.size:
                target = halves.ctypes.data + 2 * (row * num_in + column)
                store_transposed(place, target, 2 * num_in, np.uint16)
                store_transposed(place + LANES * 64, target + 2 * LANES, 2 * num_in, np.uint16)
            else:
                target = singles.ctypes.data + 4 * (row * num_in + column)
                store_transposed(place, target, 4 * num_in, np.float32)
                store_transposed(place + LANES * 64, target + 4 * LANES, 4 * num_in, np.float32)


@kernel
def _nibble(words: Any, number: int) -> Any:
    """The number-th four bits of each word, less 8, as float32."""
    return minus(bits(words, np.int32(4 * number), np.int32(15)), np.int32(8))


@kernel
def _copy_part(values: Any, singles: Any, halves: Any, row: int, column: int) -> None:
    """What there is of a tile that reaches over an edge: its first output and input are at row and column."""
    num_rows, num_in = max(singles.shape[0], halves.shape[0]), max(singles.shape[1], halves.shape[1])
    for o in range(max(row, 0), min(row + TILE, num_rows)):
        for i in range(column, min(column + GROUP, num_in)):
            if halves.size:
                halves[o, i] = bits_of_bfloat16(values[i - column, o - row])
            else:
                singles[o, i] = values[i - column, o - row]


@kernel
def _tile_by_output(kind: int, weights: int, scales: int, num_groups: int, tile: int, group: int, values: int) -> None:
    """The weights of a group of inputs and a tile of outputs, to values [32, 16] float32 at an address."""
    at = tile * num_groups + group
    scale = load(scales + at * TILE * 2, np.uint16)
    if kind == INT8:
        for i in range(GROUP):
            words = load(weights + at * GROUP * TILE + i // 4 * 64, np.uint32)
            q = minus(bits(words, np.int32(8 * (i % 4)), np.int32(255)), np.int32(128))
            store(values + 64 * i, multiply(q, scale))
    else:
        for i in range(GROUP):
            words = load(weights + at * GROUP * TILE // 2 + i // 8 * 64, np.uint32)
            store(values + 64 * i, multiply(_nibble(words, 2 * (i % 4) + i % 8 // 4), scale))


@kernel
def _tile_by_input(kind: int, weights: int, scales: int, num_in: int, tile: int, group: int, values: int) -> None:
    """The same from the rows of a panel; a tile lies in one panel, and in one group that shares a scale."""
    panel, first = tile * TILE // PANEL, tile * TILE % PANEL
    scale = array_at(scales, ((panel + 1) * num_in * PANEL // GROUP,), np.uint16)
    for i in range(min(GROUP, num_in - group * GROUP)):
        row = panel * num_in + group * GROUP + i
        step = splat(bfloat16(scale[(row * PANEL + first) // GROUP]))
        if kind == INT8 + BY_INPUT:
            q = minus(load(weights + row * PANEL + first, np.uint8), np.int32(128))
        else:
            q = _nibble(load(weights + row * (PANEL // 2), np.uint32), first // TILE)
        store(values + 64 * i, multiply(q, step))
