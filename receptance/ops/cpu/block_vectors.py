"""A block of 128 outputs in registers, to which rows of INT8 or INT4 by input are added one after the other.

    totals = load_block(address)                                    # 8 vectors of 16 float32
    totals = add_int4_block(totals, weights, factors)               # plus 128 weights, times the scale of their 32
    store_block(totals, address)

`factors` is the address of the block's four scales as float32, each times the row's activation; for INT4, times
`shrink()` as well.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .lanes import (
    F32,
    F32X16,
    FLOATS,
    I8,
    I32X16,
    I64,
    LANES,
    add_product,
    constant,
    intrinsic,
    load_lanes,
    operation,
    pointer,
    splat_lanes,
    widen,
)
from .storage import BLOCK, GROUP

__all__ = ["add_int4_block", "add_int8_block", "load_block", "shrink", "store_block"]

PARTS = BLOCK // LANES
BLOCK_OF_FLOATS = types.UniTuple(FLOATS, PARTS)
# Where the groups of an INT4 block lie in their words, in bits, once these were shifted: each comes out as a float
# that is larger by so many powers of two.
PLACES = (0, 8, 16, 16)
# The bits of 2^23: a number below 2^23 put into them is a float without conversion, larger by 2^23.
MAGIC = 0x4B000000


@intrinsic
def load_block(context: Any, address: Any) -> Any:
    """128 float32."""

    def values(builder: Any, address: Any) -> Any:
        return [load_lanes(builder, _part(builder, address, 4 * LANES, part), F32X16) for part in range(PARTS)]

    return operation(BLOCK_OF_FLOATS, types.int64)(values)


@intrinsic
def store_block(context: Any, totals: Any, address: Any) -> Any:
    """128 float32."""

    def values(builder: Any, totals: Any, address: Any) -> Any:
        for part in range(PARTS):
            place = pointer(builder, _part(builder, address, 4 * LANES, part), F32X16)
            builder.store(builder.extract_value(totals, part), place, align=1)

    return operation(types.void, BLOCK_OF_FLOATS, types.int64)(values)


@intrinsic
def add_int8_block(context: Any, totals: Any, weights: Any, factors: Any) -> Any:
    """Totals plus 128 weights of a row of INT8."""

    def values(builder: Any, totals: Any, weights: Any, factors: Any) -> Any:
        def part_of(part: int) -> Any:
            lanes = load_lanes(builder, _part(builder, weights, LANES, part), ir.VectorType(I8, LANES))
            return _less(builder, widen(builder, lanes), 128)

        return _sums(builder, totals, part_of, factors)

    return operation(BLOCK_OF_FLOATS, BLOCK_OF_FLOATS, types.int64, types.int64)(values)


@intrinsic
def add_int4_block(context: Any, totals: Any, weights: Any, factors: Any) -> Any:
    """Totals plus 128 weights of a row of INT4: part n is in the n-th four bits of 16 words."""

    def values(builder: Any, totals: Any, weights: Any, factors: Any) -> Any:
        words = load_lanes(builder, weights, I32X16)

        def part_of(part: int) -> Any:
            place = PLACES[part * LANES // GROUP]
            moved = builder.lshr(words, constant(I32X16, 4 * part - place))
            return _less(builder, builder.and_(moved, constant(I32X16, 15 << place)), 8 << place)

        return _sums(builder, totals, part_of, factors)

    return operation(BLOCK_OF_FLOATS, BLOCK_OF_FLOATS, types.int64, types.int64)(values)


@intrinsic
def shrink(context: Any) -> Any:
    """What undoes the powers of two of `PLACES`, for 16 groups."""

    def values(builder: Any) -> Any:
        return ir.Constant(F32X16, [2.0**-place for place in PLACES] * (LANES // len(PLACES)))

    return operation(FLOATS)(values)


def _part(builder: Any, address: Any, part_bytes: int, part: int) -> Any:
    return builder.add(address, ir.Constant(I64, part_bytes * part))


def _less(builder: Any, numbers: Any, offset: int) -> Any:
    """Numbers below 2^23 less an offset, as float32."""
    floats = builder.bitcast(builder.or_(numbers, constant(I32X16, MAGIC)), F32X16)
    return builder.fsub(floats, constant(F32X16, 2.0**23 + offset))


def _sums(builder: Any, totals: Any, part_of: Any, factors: Any) -> list[Any]:
    """Every part of the totals plus its part of the row times the factor of its group."""
    sums = []
    for part in range(PARTS):
        place = _part(builder, factors, 4, part * LANES // GROUP)
        factor = splat_lanes(builder, load_lanes(builder, place, F32))
        sums.append(add_product(builder, part_of(part), factor, builder.extract_value(totals, part)))
    return sums
