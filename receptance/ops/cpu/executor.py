"""One token for each row of a batch: a table of instructions run by one compiled loop.

What takes long, matrix products and recurrences, is cut into units that threads take one after the other; all that may
run at the same time is one parallel region.  The vectors in between are short: one thread computes them faster than
several could agree on it, unless there are many rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import elementwise, products
from .activations import list_inputs, listed_at, round_activations, rounded_at
from .ahead import MOST_UNITS, ask_for_constants, ask_for_unit, num_units_ahead
from .bits import call_address
from .crew import offer, share, withdraw
from .instructions import OPERATION, PRODUCT_FUNCTION, STEP
from .jit import c_function, free_kernel, kernel
from .machine import (
    ADD,
    ADD_CONSTANT,
    EMBED,
    EXP,
    LERP,
    LERP_VALUES,
    LOAD,
    MUL,
    MUL_CONSTANT,
    MUL_GROUPS,
    NORM,
    NUM_ROWS,
    PRODUCT,
    RELU,
    ROUND,
    SCALE,
    SHARED,
    SHIFT,
    SIGMOID,
    SILU,
    SKIP,
    SLICE,
    SQUARE,
    SUM,
    TANH,
    UNIT,
    WKV4,
    WKV6,
    constants_of,
    machine_at,
    scratch_of,
    shift_of,
    slots_of,
    table_of,
    tokens_of,
    wkv_of,
)
from .products import num_units
from .steps import wkv4_step, wkv6_step, wkv7_step

# Rows from which on the short vectors are worth sharing out as well.
MANY_ROWS = 4


@cache
def workers() -> tuple[Any, Any, Any]:
    """The compiled functions that compute a unit, compute rows, and ask for what comes; called by their addresses."""
    return c_function(_do_unit, 5), c_function(_do_rows, 5), c_function(ask_for_unit, 5)


@free_kernel
def execute(machine: Any, board: Any, do_unit: int, do_rows: int, ask: int) -> None:
    """Run the whole table of a machine [NUM_FIELDS] int64, with whoever helps at the crew's board."""
    table, num_rows, address = table_of(machine), machine[NUM_ROWS], np.int64(machine.ctypes.data)
    start = np.int64(0)
    while start < table.shape[0]:
        stop = _end(table, start)
        if table[start, OPERATION] >= SHARED:
            ask_for_constants(machine, stop)
            share(board, do_unit, address, start, stop, _num_units(table, start, stop))
        elif num_rows >= MANY_ROWS:
            share(board, do_rows, address, start, stop, num_rows)
        else:
            end = _end(table, stop)
            offer(board, ask, address, stop, end, num_units_ahead(machine, stop, end), MOST_UNITS)
            call_address(do_rows, address, start, stop, 0, num_rows)
            withdraw(board)
        start = stop


@kernel
def _end(table: Any, start: int) -> int:
    """Where the parallel region, or the run of short vectors, that begins at an instruction ends."""
    stop = start
    while stop < table.shape[0] and _together(table, start, stop):
        stop += 1
    return stop


@kernel
def _together(table: Any, start: int, other: int) -> bool:
    """Whether instruction `other` goes with `start`: in one parallel region, or in one run of short vectors."""
    if table[start, OPERATION] >= SHARED:
        return table[other, STEP] == table[start, STEP]  # type: ignore[no-any-return]
    return table[other, OPERATION] < SHARED  # type: ignore[no-any-return]


@kernel
def _num_units(table: Any, start: int, stop: int) -> int:
    """Into how many units the shared instructions from start to before stop are cut; recurrences into their heads."""
    total = 0
    for number in range(start, stop):
        total += _units_of(table[number])
    return total


def _do_unit(address: int, start: int, stop: int, task: int, _: int) -> None:
    """The unit number `task` of the shared instructions from start to before stop."""
    machine = machine_at(address)
    table = table_of(machine)
    number = start
    while number < stop - 1 and task >= _units_of(table[number]):
        task -= _units_of(table[number])
        number += 1
    _run_unit(table[number], scratch_of(machine), wkv_of(machine), slots_of(machine), task)


def _do_rows(address: int, start: int, stop: int, low: int, high: int) -> None:
    """Instructions start to before stop, none of them shared, for rows low to before high."""
    machine = machine_at(address)
    table = table_of(machine)
    constants, scratch, shift, wkv = constants_of(machine), scratch_of(machine), shift_of(machine), wkv_of(machine)
    tokens, slots = tokens_of(machine), slots_of(machine)
    for number in range(start, stop):
        row = table[number]
        op = row[OPERATION]
        if op <= SLICE or op >= ROUND:
            _move(row, constants, scratch, shift, wkv, tokens, slots, low, high, machine[SKIP] != 0)
        elif op <= LERP_VALUES:
            _combine(row, constants, scratch, low, high)
        else:
            _map(row, constants, scratch, low, high)


@kernel
def _units_of(row: Any) -> int:
    if row[OPERATION] == PRODUCT:
        return num_units(row[3], row[6], row[7])  # type: ignore[no-any-return]
    return row[7] if row[OPERATION] == WKV6 else row[9]  # type: ignore[no-any-return]


@kernel
def _run_unit(row: Any, scratch: Any, wkv: Any, slots: Any, unit: int) -> None:
    """One unit of a product, or one head of a recurrence, for all rows of the batch."""
    if row[OPERATION] == PRODUCT:
        _multiply(row, scratch, slots.shape[0], unit)
        return
    layer, H, N = (row[6], row[7], row[8]) if row[OPERATION] == WKV6 else (row[8], row[9], row[10])
    w = np.empty(N, np.float32)
    for b in range(slots.shape[0]):
        start = b * H * N + unit * N
        S = wkv[layer, slots[b]].reshape(H, N, N)[unit]
        y, r = _part(scratch, row[1], start, N), _part(scratch, row[2], start, N)
        log_w, k = _part(scratch, row[3], start, N), _part(scratch, row[4], start, N)
        v = _part(scratch, row[5], start, N)
        if row[OPERATION] == WKV6:
            wkv6_step(y, r, log_w, k, v, S, w)
        else:
            wkv7_step(y, r, log_w, k, v, _part(scratch, row[6], start, N), _part(scratch, row[7], start, N), S, w)


@kernel
def _part(memory: Any, place: int, start: int, size: int) -> Any:
    return memory[place + start : place + start + size]


@kernel
def _multiply(row: Any, scratch: Any, B: int, unit: int) -> None:
    """One unit of the product that `row` describes, by the worker of `products`."""
    job = np.zeros(products.JOB_SIZE, np.int64)
    memory = scratch.ctypes.data
    job[products.X], job[products.Y] = memory + 4 * row[2], memory + 4 * row[1]
    job[products.KIND], job[products.WEIGHTS], job[products.SCALES] = row[3], row[4], row[5]
    job[products.NUM_OUT], job[products.NUM_IN], job[products.NUM_ROWS] = row[6], row[7], B
    call_address(row[PRODUCT_FUNCTION], job.ctypes.data, 0, 0, unit, 0)


@kernel
def _rows(scratch: Any, place: int, size: int, low: int, high: int) -> Any:
    """Rows low to before high of the value at a place."""
    return scratch[place + low * size : place + high * size]


@kernel
def _move(
    row: Any,
    constants: Any,
    scratch: Any,
    shift: Any,
    wkv: Any,
    tokens: Any,
    slots: Any,
    low: int,
    high: int,
    skip: bool,
) -> None:
    """Instructions that look at memory, or at numbers in another form."""
    op = row[OPERATION]
    if op == EMBED:
        size = row[4]
        for b in range(low, high):
            elementwise.embed(_rows(scratch, row[1], size, b, b + 1), row[2], row[3], tokens[b])
    elif op == SHIFT:
        size = row[5]
        for b in range(low, high):
            last = shift[row[3], row[4], slots[b]]
            out, x = _rows(scratch, row[1], size, b, b + 1), _rows(scratch, row[2], size, b, b + 1)
            for i in range(size):
                out[i] = last[i]
                last[i] = x[i]
    elif op == LOAD:
        elementwise.load(_rows(scratch, row[1], row[3], low, high), constants[row[2] : row[2] + row[3]])
    elif op == SLICE:
        whole, size = row[4], row[5]
        out, x = _rows(scratch, row[1], size, low, high), _rows(scratch, row[2], whole, low, high)
        elementwise.pick(out, x, row[3], whole, size)
    elif op == ROUND:
        size = row[3]
        x = _rows(scratch, row[2], size, low, high).reshape(high - low, size)
        xq, sx, sums = rounded_at(scratch.ctypes.data + 4 * row[1], slots.shape[0], size)
        round_activations(x, xq[low:high], sx[low:high], sums[low:high])
    elif op == WKV4:
        size = row[7]
        u = constants[row[3] : row[3] + size]
        for b in range(low, high):
            y, log_w = _rows(scratch, row[1], size, b, b + 1), _rows(scratch, row[2], size, b, b + 1)
            k, v = _rows(scratch, row[4], size, b, b + 1), _rows(scratch, row[5], size, b, b + 1)
            wkv4_step(y, log_w, u, k, v, wkv[row[6], slots[b]].reshape(3, size))
    else:  # LIST
        size = row[3]
        inputs, factors, counts = listed_at(scratch.ctypes.data + 4 * row[1], slots.shape[0], size)
        for b in range(low, high):
            counts[b] = list_inputs(_rows(scratch, row[2], size, b, b + 1), skip, inputs[b], factors[b])


@kernel
def _combine(row: Any, constants: Any, scratch: Any, low: int, high: int) -> None:
    """Instructions with two values, or a value and a constant."""
    op = row[OPERATION]
    size = row[5] if op >= LERP else row[4]
    out, x = _rows(scratch, row[1], size, low, high), _rows(scratch, row[2], size, low, high)
    if op == ADD:
        elementwise.add(out, x, _rows(scratch, row[3], size, low, high))
    elif op == MUL:
        elementwise.multiply(out, x, _rows(scratch, row[3], size, low, high))
    elif op == MUL_GROUPS:
        factors = _rows(scratch, row[2], size // row[5], low, high)
        elementwise.multiply_groups(out, factors, _rows(scratch, row[3], size, low, high), row[5])
    elif op == ADD_CONSTANT:
        elementwise.add_constant(out, x, constants[row[3] : row[3] + size])
    elif op == MUL_CONSTANT:
        elementwise.multiply_constant(out, x, constants[row[3] : row[3] + size])
    elif op == SCALE:
        elementwise.scale(out, x, constants[row[3]], constants[row[3] + 1])
    elif op == LERP:
        end = _rows(scratch, row[3], size, low, high)
        elementwise.lerp_constant(out, x, end, constants[row[4] : row[4] + size])
    else:  # LERP_VALUES
        end, weight = _rows(scratch, row[3], size, low, high), _rows(scratch, row[4], size, low, high)
        elementwise.lerp(out, x, end, weight)


@kernel
def _map(row: Any, constants: Any, scratch: Any, low: int, high: int) -> None:
    """Instructions with one value: number by number, or group by group."""
    op = row[OPERATION]
    if op == SUM:
        size, group = row[3], row[4]
        x = _rows(scratch, row[2], size * group, low, high)
        elementwise.sum_groups(_rows(scratch, row[1], size, low, high), x, group)
        return
    size = row[4] if op in (NORM, UNIT) else row[3]
    out, x = _rows(scratch, row[1], size, low, high), _rows(scratch, row[2], size, low, high)
    if op == EXP:
        elementwise.exponential(out, x)
    elif op == TANH:
        elementwise.hyperbolic_tangent(out, x)
    elif op == SIGMOID:
        elementwise.logistic(out, x)
    elif op == SILU:
        elementwise.silu(out, x)
    elif op == RELU:
        elementwise.rectify(out, x)
    elif op == SQUARE:
        elementwise.square(out, x)
    elif op == NORM:
        weight, bias = constants[row[3] : row[3] + size], constants[row[3] + size : row[3] + 2 * size]
        elementwise.norm(out, x, weight, bias, constants[row[3] + 2 * size], row[5])
    else:  # UNIT
        elementwise.unit_vectors(out, x, constants[row[3]], row[5])
