"""y = x W^T for few rows x and weights in float32, bfloat16, int8 or int4, at the speed of memory.

    y = product(x, INT8, packed, scales, num_out, num_in)      # a tensor in, a tensor out
    share(board, worker(INT8).address, job, ...)               # the same in a kernel, for `crew`

How weights are stored is told in `storage`.  Each is read from memory once, for however many rows.  A row's result does
not depend, to the bit, on the rows beside it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bits import array_at
from .by_input import add_inputs
from .by_output import integer_outputs, real_outputs
from .crew import run
from .jit import c_function, kernel
from .storage import BFLOAT16, BLOCK, BY_INPUT, FLOAT32, GROUP, INT4, INT8, SEGMENTS, TILE
from .unpacking import dequantize
from .vectors import round_group

__all__ = [
    "BFLOAT16",
    "BY_INPUT",
    "FLOAT32",
    "GROUP",
    "INT4",
    "INT8",
    "SEGMENTS",
    "add_partials",
    "dequantize",
    "num_units",
    "partial_width",
    "product",
    "round_activations",
    "weight_bytes",
    "worker",
]

UNIT_BYTES = 65536


@kernel
def round_activations(x: Any, xq: Any, sx: Any, sums: Any) -> None:
    """x [B, in] float32 to xq [B, in] int8 and sx [B, in/32] float32, x ~ xq sx; sums [B, in/32] int32 of xq.

    All of them are contiguous.
    """
    num_rows, num_groups = sx.shape
    source, target = x.ctypes.data, xq.ctypes.data
    for b in range(num_rows):
        for g in range(num_groups):
            largest, sums[b, g] = round_group(source, target)
            sx[b, g] = np.float32(largest / np.float32(127))
            source, target = source + 4 * GROUP, target + GROUP


@kernel
def partial_width(num_out: int) -> int:
    """The last size of `partial`: num_out, padded."""
    return (num_out + BLOCK - 1) // BLOCK * BLOCK


@kernel
def weight_bytes(kind: int, count: int) -> int:
    """What so many weights take, without their scales."""
    form = kind % BY_INPUT
    halves = 8 if form == FLOAT32 else 4 if form == BFLOAT16 else 2 if form == INT8 else 1
    return halves * count // 2


@kernel
def _tiles_per_unit(kind: int, num_in: int) -> int:
    return max(1, UNIT_BYTES // max(weight_bytes(kind, TILE * num_in), 1))  # type: ignore[no-any-return]


@kernel
def num_units(kind: int, num_out: int, num_in: int) -> int:
    """Into how many independent pieces a product is cut; those by input write one segment of `partial` each."""
    if kind >= BY_INPUT:
        return SEGMENTS
    tiles = _tiles_per_unit(kind, num_in)
    return ((num_out + TILE - 1) // TILE + tiles - 1) // tiles  # type: ignore[no-any-return]


@kernel
def add_partials(partial: Any, y: Any, num_segments: int) -> None:
    """y [B, out] = the sum of partial [num_segments, B, width] over its segments, in their order."""
    for b in range(y.shape[0]):
        for o in range(y.shape[1]):
            y[b, o] = partial[0, b, o]
        for segment in range(1, num_segments):
            for o in range(y.shape[1]):
                y[b, o] += partial[segment, b, o]


# What `worker` is told, int64 each: addresses and sizes.  XQ, SX and SUMS hold x as `round_activations` rounds it.
KIND, WEIGHTS, SCALES, NUM_OUT, NUM_IN, NUM_ROWS, X, XQ, SX, SUMS, Y, PARTIAL, SKIP = range(13)
JOB_SIZE = 13


@kernel
def _compute_unit(integers: Any, address: int, unit: int) -> None:
    """One of the `num_units` pieces of the job at an address.

    integers: None for FLOAT32 and BFLOAT16, and then the others' code is not compiled.

    Kinds by output write their part of y [B, out]; kinds by input write partial[unit] of [SEGMENTS, B, width] with
    width = partial_width(out), for `add_partials` to add, and where the job says so read no row whose input is 0.
    """
    job = array_at(address, (JOB_SIZE,), np.int64)
    kind, num_out, num_in, num_rows = job[KIND], job[NUM_OUT], job[NUM_IN], job[NUM_ROWS]
    x = array_at(job[X], (num_rows, num_in), np.float32)
    if kind >= BY_INPUT:
        partial = array_at(job[PARTIAL], (SEGMENTS, num_rows, partial_width(num_out)), np.float32)
        start, stop, skip = unit * num_in // SEGMENTS, (unit + 1) * num_in // SEGMENTS, job[SKIP] != 0
        add_inputs(integers, kind - BY_INPUT, job[WEIGHTS], job[SCALES], x, partial[unit], num_out, start, stop, skip)
        return
    y = array_at(job[Y], (num_rows, num_out), np.float32)
    tiles = _tiles_per_unit(kind, num_in)
    start, stop = unit * tiles, min((unit + 1) * tiles, (num_out + TILE - 1) // TILE)
    if integers is None:
        real_outputs(kind, job[WEIGHTS], x, y, start, stop)
    else:
        xq = array_at(job[XQ], (num_rows, num_in), np.int8)
        sx = array_at(job[SX], (num_rows, num_in // GROUP), np.float32)
        sums = array_at(job[SUMS], (num_rows, num_in // GROUP), np.int32)
        integer_outputs(kind, job[WEIGHTS], job[SCALES], xq, sx, sums, y, start, stop)


def _do_real_unit(address: int, start: int, stop: int, unit: int, end: int) -> None:
    """The unit of the job at an address; the other numbers are of no use here."""
    _compute_unit(None, address, unit)


def _do_integer_unit(address: int, start: int, stop: int, unit: int, end: int) -> None:
    """The same for INT8 and INT4: who needs one of the two need not wait until the other is compiled."""
    _compute_unit(True, address, unit)


def worker(kind: int) -> Any:
    """The compiled function that computes a unit of a job of this kind, for `crew.share` to call by its address."""
    return _worker(kind % BY_INPUT in (INT8, INT4))


@cache
def _worker(integer: bool) -> Any:
    return c_function(_do_integer_unit if integer else _do_real_unit, 5)


def product(
    x: Tensor,
    kind: int,
    weights: Tensor,
    scales: Tensor | None,
    num_out: int,
    num_in: int,
    bias: Tensor | None = None,
    skip: bool = True,
) -> Tensor:
    """x [M, in] float32 times the transposed weight, plus bias [out] float32: a new [M, out] float32."""
    rows = x.detach().contiguous().numpy()
    num_rows = len(rows)
    groups = num_in // GROUP if kind in (INT8, INT4) else 0
    xq = np.empty((num_rows, GROUP * groups), np.int8)
    sx, sums = np.empty((num_rows, groups), np.float32), np.empty((num_rows, groups), np.int32)
    round_activations(rows, xq, sx, sums)
    y = np.empty((num_rows, num_out), np.float32)
    partial = np.empty((SEGMENTS if kind >= BY_INPUT else 0, num_rows, partial_width(num_out)), np.float32)
    job = np.zeros(JOB_SIZE, np.int64)
    job[[KIND, NUM_OUT, NUM_IN, NUM_ROWS, SKIP]] = kind, num_out, num_in, num_rows, skip
    job[[WEIGHTS, SCALES]] = weights.data_ptr(), 0 if scales is None else scales.data_ptr()
    job[[X, XQ, SX, SUMS, Y, PARTIAL]] = [array.ctypes.data for array in (rows, xq, sx, sums, y, partial)]
    run(worker(kind).address, job.ctypes.data, num_units(kind, num_out, num_in))
    if kind >= BY_INPUT:
        add_partials(partial, y, SEGMENTS)
    result = torch.from_numpy(y)
    return result if bias is None else result + bias
