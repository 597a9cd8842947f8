"""A machine's fields and instructions as kernels see them: Numba knows no enumerations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .instructions import FIRST_SHARED, WIDTH, Field, Op
from .jit import kernel

(
    TABLE, NUM_INSTRUCTIONS, CONSTANTS, NUM_CONSTANTS, SCRATCH, SCRATCH_SIZE, SHIFTS, SHIFT_SIZE, WKV, WKV_SIZE,
    NUM_LAYERS, NUM_SLOTS, TOKENS, SLOTS, NUM_ROWS, SKIP,
) = map(int, Field)  # fmt: skip
NUM_FIELDS = len(Field)
SHARED = int(FIRST_SHARED)
(
    EMBED, SHIFT, LOAD, SLICE, ADD, MUL, MUL_GROUPS, ADD_CONSTANT, MUL_CONSTANT, SCALE, LERP, LERP_VALUES, EXP, TANH,
    SIGMOID, SILU, RELU, SQUARE, NORM, UNIT, SUM, ROUND, WKV4, LIST, PRODUCT, WKV6, WKV7,
) = map(int, Op)  # fmt: skip


@kernel
def machine_at(address: int) -> Any:
    """The machine [NUM_FIELDS] int64 at an address."""
    return array_at(address, (NUM_FIELDS,), np.int64)


@kernel
def table_of(machine: Any) -> Any:
    """Its instructions [n, WIDTH] int64."""
    return array_at(machine[TABLE], (machine[NUM_INSTRUCTIONS], WIDTH), np.int64)


@kernel
def constants_of(machine: Any) -> Any:
    """All its constants, flat float32."""
    return array_at(machine[CONSTANTS], (machine[NUM_CONSTANTS],), np.float32)


@kernel
def scratch_of(machine: Any) -> Any:
    """The memory of its values, flat float32."""
    return array_at(machine[SCRATCH], (machine[SCRATCH_SIZE],), np.float32)


@kernel
def shift_of(machine: Any) -> Any:
    """The token shifts' part of the states [L, 2, slots, C] float32."""
    return array_at(machine[SHIFTS], (machine[NUM_LAYERS], 2, machine[NUM_SLOTS], machine[SHIFT_SIZE]), np.float32)


@kernel
def wkv_of(machine: Any) -> Any:
    """The recurrences' part of the states [L, slots, size] float32."""
    return array_at(machine[WKV], (machine[NUM_LAYERS], machine[NUM_SLOTS], machine[WKV_SIZE]), np.float32)


@kernel
def tokens_of(machine: Any) -> Any:
    """The token of each row [B] int64."""
    return array_at(machine[TOKENS], (machine[NUM_ROWS],), np.int64)


@kernel
def slots_of(machine: Any) -> Any:
    """The slot of each row [B] int64."""
    return array_at(machine[SLOTS], (machine[NUM_ROWS],), np.int64)
