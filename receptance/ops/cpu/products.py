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
from numpy.typing import NDArray
from torch import Tensor

from .activations import list_inputs, listed_at, round_activations, rounded_at
from .bits import array_at
from .by_input import multiply_panel
from .by_output import integer_outputs, real_outputs
from .crew import run
from .jit import c_function, kernel
from .storage import (
    BFLOAT16,
    BY_INPUT,
    FLOAT32,
    INT4,
    INT8,
    PANEL,
    TILE,
    listed_size,
    rounded_size,
)
from .unpacking import dequantize

__all__ = [
    "BFLOAT16",
    "BY_INPUT",
    "FLOAT32",
    "INT4",
    "INT8",
    "dequantize",
    "num_units",
    "product",
    "weight_bytes",
    "worker",
]

UNIT_BYTES = 65536


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
    """Into how many independent pieces a product is cut."""
    if kind >= BY_INPUT:
        return (num_out + PANEL - 1) // PANEL
    tiles = _tiles_per_unit(kind, num_in)
    return ((num_out + TILE - 1) // TILE + tiles - 1) // tiles  # type: ignore[no-any-return]


# What `worker` is told, int64 each: addresses and sizes.  X holds activations as the kind reads them:
# rounded, listed, or as they are (see `activations`).
KIND, WEIGHTS, SCALES, NUM_OUT, NUM_IN, NUM_ROWS, X, Y = range(8)
JOB_SIZE = 8


@kernel
def _compute_unit(integers: Any, address: int, unit: int) -> None:
    """One of the `num_units` pieces of the job at an address: its part of y [B, out].

    integers: None for FLOAT32 and BFLOAT16, and then the others' code is not compiled.
    """
    job = array_at(address, (JOB_SIZE,), np.int64)
    kind, num_out, num_in, num_rows = job[KIND], job[NUM_OUT], job[NUM_IN], job[NUM_ROWS]
    weights, scales, y = job[WEIGHTS], job[SCALES], array_at(job[Y], (num_rows, num_out), np.float32)
    if kind >= BY_INPUT:
        listed = listed_at(job[X], num_rows, num_in)
        multiply_panel(integers, kind - BY_INPUT, weights, scales, listed, num_in, y, unit)
        return
    tiles = _tiles_per_unit(kind, num_in)
    start, stop = unit * tiles, min((unit + 1) * tiles, (num_out + TILE - 1) // TILE)
    if integers is None:
        real_outputs(kind, weights, array_at(job[X], (num_rows, num_in), np.float32), y, start, stop)
    else:
        xq, sx, sums = rounded_at(job[X], num_rows, num_in)
        integer_outputs(kind, weights, scales, xq, sx, sums, y, start, stop)


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
    read = _prepared(rows, kind, skip)
    y = np.empty((len(rows), num_out), np.float32)
    job = np.zeros(JOB_SIZE, np.int64)
    job[[KIND, NUM_OUT, NUM_IN, NUM_ROWS]] = kind, num_out, num_in, len(rows)
    job[[WEIGHTS, SCALES]] = weights.data_ptr(), 0 if scales is None else scales.data_ptr()
    job[[X, Y]] = read.ctypes.data, y.ctypes.data
    run(worker(kind).address, job.ctypes.data, num_units(kind, num_out, num_in))
    result = torch.from_numpy(y)
    return result if bias is None else result + bias


def _prepared(rows: NDArray[np.float32], kind: int, skip: bool) -> NDArray[np.float32]:
    """Activations [B, in] as a kind of product reads them."""
    num_rows, num_in = rows.shape
    if kind >= BY_INPUT:
        listed = np.empty(num_rows * listed_size(num_in), np.float32)
        _list_rows(rows, skip, listed)
        return listed
    if kind in (INT8, INT4):
        rounded = np.empty(num_rows * rounded_size(num_in), np.float32)
        _round_rows(rows, rounded)
        return rounded
    return rows


@kernel
def _list_rows(rows: Any, skip: bool, listed: Any) -> None:
    inputs, factors, counts = listed_at(listed.ctypes.data, rows.shape[0], rows.shape[1])
    for b in range(rows.shape[0]):
        counts[b] = list_inputs(rows[b], skip, inputs[b], factors[b])


@kernel
def _round_rows(rows: Any, rounded: Any) -> None:
    xq, sx, sums = rounded_at(rounded.ctypes.data, rows.shape[0], rows.shape[1])
    round_activations(rows, xq, sx, sums)
