"""The instructions of a compiled step: what `runtime` writes and the executor reads.

An instruction is a row of integers, `WIDTH` of them: the operation, its target, its operands, and last the number of
the step it belongs to: shared instructions of one step run at the same time.  A value is a place in the scratch memory:
for each row of the batch as many float32 as the value has, one row after the other.  A constant is a place in the table
of constants.  Needs no Numba.
"""

from __future__ import annotations

from enum import IntEnum, auto

WIDTH = 12
OPERATION, TARGET, STEP = 0, 1, WIDTH - 1
# Of a product: its kind, and the address of the function that computes a unit, which is filled in for this process.
PRODUCT_KIND, PRODUCT_FUNCTION = 3, 8


class Op(IntEnum):
    """Operations, each with its operands after the target; `size` counts the numbers of one row.

    Those from PRODUCT on are shared out among threads, the others are computed row by row.
    """

    EMBED = 0  # address of the embedding, its kind, size: the token's row of it
    SHIFT = auto()  # value, layer, which, size: the input of the step before; this one is remembered
    LOAD = auto()  # constant, size
    SLICE = auto()  # value, start, the value's size, size
    ADD = auto()  # value, value, size
    MUL = auto()  # value, value, size
    MUL_GROUPS = auto()  # a number for each group, value, size, group size
    ADD_CONSTANT = auto()  # value, constant, size
    MUL_CONSTANT = auto()  # value, constant, size
    SCALE = auto()  # value, constant (factor, summand), size
    LERP = auto()  # start, end, constant weight, size
    LERP_VALUES = auto()  # start, end, weight, size
    EXP = auto()  # value, size
    TANH = auto()  # value, size
    SIGMOID = auto()  # value, size
    SILU = auto()  # value, size
    RELU = auto()  # value, size
    SQUARE = auto()  # value, size
    NORM = auto()  # value, constant (weight, bias, eps), size, group size
    UNIT = auto()  # value, constant (eps), size, group size: every group as a unit vector
    SUM = auto()  # value, size, group size: of every group; size counts the groups
    ROUND = auto()  # value, size: int8, then a scale and a sum for each group of 32
    WKV4 = auto()  # log_w, constant u, k, v, layer, size
    LIST = auto()  # value, size: the inputs that count, and how many they are
    PRODUCT = auto()  # value, rounded or listed as the kind reads it, kind, address of weights, of scales, outputs,
    # inputs, a function
    WKV6 = auto()  # r, log_w, k, v, layer, heads, head size
    WKV7 = auto()  # r, log_w, k, v, a, b, layer, heads, head size


FIRST_SHARED = Op.PRODUCT


class Field(IntEnum):
    """What a machine is made of: addresses, and the sizes of what lies there."""

    TABLE = 0  # [NUM_INSTRUCTIONS, WIDTH] int64
    NUM_INSTRUCTIONS = auto()
    CONSTANTS = auto()  # [NUM_CONSTANTS] float32
    NUM_CONSTANTS = auto()
    SCRATCH = auto()  # [SCRATCH_SIZE] float32
    SCRATCH_SIZE = auto()
    SHIFTS = auto()  # [NUM_LAYERS, 2, NUM_SLOTS, SHIFT_SIZE] float32, changed in place
    SHIFT_SIZE = auto()
    WKV = auto()  # [NUM_LAYERS, NUM_SLOTS, WKV_SIZE] float32, changed in place
    WKV_SIZE = auto()
    NUM_LAYERS = auto()
    NUM_SLOTS = auto()
    TOKENS = auto()  # [NUM_ROWS] int64: what each row reads
    SLOTS = auto()  # [NUM_ROWS] int64: which state is each row's
    NUM_ROWS = auto()
    SKIP = auto()  # not 0: inputs that are exactly 0 are not listed
