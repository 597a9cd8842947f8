"""Memory is asked for what later instructions read, while it would have nothing to do.

Whatever a token reads comes from main memory, and reading it is what a step takes its time for.  So while one thread
computes the short vectors between two regions, the others ask for the first weights and states of the region that
follows; and before a region is begun, the constants of the vectors behind it are asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .instructions import OPERATION
from .jit import kernel
from .machine import (
    ADD_CONSTANT,
    CONSTANTS,
    LERP,
    LOAD,
    MUL_CONSTANT,
    NORM,
    NUM_SLOTS,
    PRODUCT,
    SHARED,
    SHIFT,
    SHIFT_SIZE,
    SHIFTS,
    SKIP,
    WKV,
    WKV4,
    WKV6,
    WKV_SIZE,
    machine_at,
    slots_of,
    table_of,
)
from .products import weight_bytes
from .storage import BY_INPUT
from .vectors import prefetch

__all__ = ["MOST_UNITS", "ask_for_constants", "ask_for_unit", "num_units_ahead"]

LINE = 64
UNIT_BYTES = 16384
# For each thread: what the second-level cache of a core holds beside what is computed.
MOST_UNITS = 256 * 1024 // UNIT_BYTES


@kernel
def _ask_for(address: int, num_bytes: int) -> None:
    for at in range(address, address + num_bytes, LINE):
        prefetch(at)


@kernel
def ask_for_constants(machine: Any, start: int) -> None:
    """Ask for what the run of short vectors from instruction `start` on reads beside other instructions' results."""
    table, base, number = table_of(machine), machine[CONSTANTS], start
    while number < table.shape[0] and table[number, OPERATION] < SHARED:
        row = table[number]
        op = row[OPERATION]
        if op == LOAD:
            _ask_for(base + 4 * row[2], 4 * row[3])
        elif op in (ADD_CONSTANT, MUL_CONSTANT):
            _ask_for(base + 4 * row[3], 4 * row[4])
        elif op == LERP:
            _ask_for(base + 4 * row[4], 4 * row[5])
        elif op == NORM:
            _ask_for(base + 4 * row[3], 8 * row[4])
        elif op == WKV4:
            _ask_for(base + 4 * row[3], 4 * row[7])
        elif op == SHIFT:
            rows = (2 * row[3] + row[4]) * machine[NUM_SLOTS]
            _ask_for(machine[SHIFTS] + 4 * machine[SHIFT_SIZE] * (rows + slots_of(machine)[0]), 4 * row[5])
        number += 1


@kernel
def num_units_ahead(machine: Any, start: int, stop: int) -> int:
    """Of how many units the region of instructions start to before stop consists."""
    table, total = table_of(machine), np.int64(0)
    for number in range(start, stop):
        total += _units(_extent(machine, table[number])[1])
    return total  # type: ignore[return-value]


@kernel
def _units(num_bytes: int) -> int:
    return (num_bytes + UNIT_BYTES - 1) // UNIT_BYTES


@kernel
def _extent(machine: Any, row: Any) -> Any:
    """Where the weights of a product are, or the first row's state of a recurrence, and their bytes."""
    if row[OPERATION] != PRODUCT:
        layer = row[6] if row[OPERATION] == WKV6 else row[8]
        state = layer * machine[NUM_SLOTS] + slots_of(machine)[0]
        return machine[WKV] + 4 * machine[WKV_SIZE] * state, 4 * machine[WKV_SIZE]
    if row[3] >= BY_INPUT and machine[SKIP] != 0:
        # Nobody knows yet which of them are needed.
        return row[4], np.int64(0)
    return row[4], weight_bytes(row[3], row[6] * row[7])


def ask_for_unit(address: int, start: int, stop: int, unit: int, _: int) -> None:
    """Ask for a unit of the region start to before stop, for `crew`."""
    machine = machine_at(address)
    table = table_of(machine)
    for number in range(start, stop):
        place, num_bytes = _extent(machine, table[number])
        if unit < _units(num_bytes):
            first = unit * UNIT_BYTES
            _ask_for(place + first, min(num_bytes - first, np.int64(UNIT_BYTES)))
            return
        unit -= _units(num_bytes)
