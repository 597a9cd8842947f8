"""Vectors for R rows of activations at once, so that weights that were loaded once serve them all.

    totals = zero_rows(rows)                                        # a tuple of R vectors; rows: any tuple of length R
    totals = multiply_add_rows(totals, weights, address, stride, None)

Row r has its numbers at address + r * stride, in bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .features import has
from .lanes import (
    F32,
    F32X16,
    FLOATS,
    I16,
    I32,
    I32X16,
    INTEGERS,
    LANES,
    add_product,
    call,
    constant,
    first_lanes,
    intrinsic,
    load_lanes,
    load_lanes_part,
    operation,
    pick,
    pointer,
    row_address,
    splat_lanes,
)

__all__ = [
    "add_rows",
    "dot_rows",
    "multiply_add_rows",
    "scale_rows",
    "splat_rows",
    "store_rows",
    "store_sums",
    "zero_rows",
]


@intrinsic
def zero_rows(context: Any, rows: Any) -> Any:
    """R vectors of zeros; rows: any tuple of length R."""

    def values(builder: Any, rows: Any) -> Any:
        return [ir.Constant(F32X16, None)] * rows.type.count

    return operation(types.UniTuple(FLOATS, len(rows)), rows)(values)


@intrinsic
def splat_rows(context: Any, rows: Any, address: Any, stride: Any, factor: Any) -> Any:
    """For each row its int32 at address + row * stride, times factor, in all lanes; rows: any tuple of length R."""

    def values(builder: Any, rows: Any, address: Any, stride: Any, factor: Any) -> Any:
        numbers = [load_lanes(builder, row_address(builder, address, stride, r), I32) for r in range(rows.type.count)]
        return [splat_lanes(builder, builder.mul(number, factor)) for number in numbers]

    return operation(types.UniTuple(INTEGERS, len(rows)), rows, types.int64, types.int64, types.int32)(values)


@intrinsic
def dot_rows(context: Any, totals: Any, words: Any, address: Any, stride: Any) -> Any:
    """To each lane of totals the products of the lane's four unsigned bytes in words with the row's four int8."""

    def values(builder: Any, totals: Any, words: Any, address: Any, stride: Any) -> Any:
        made = []
        for r in range(totals.type.count):
            four = load_lanes(builder, row_address(builder, address, stride, r), I32)
            made.append(_dot(builder, builder.extract_value(totals, r), words, four))
        return made

    return operation(totals, totals, INTEGERS, types.int64, types.int64)(values)


def _dot(builder: Any, total: Any, words: Any, four: Any) -> Any:
    if has("avx512vnni"):
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", I32X16, total, words, splat_lanes(builder, four))
    if has("avxvnni"):
        return _dot_in_halves(builder, total, words, splat_lanes(builder, four, LANES // 2))
    return _dot_of_pairs(builder, total, words, splat_lanes(builder, four))


def _dot_in_halves(builder: Any, total: Any, words: Any, fours: Any) -> Any:
    name, halves = "llvm.x86.avx512.vpdpbusd.256", (range(LANES // 2), range(LANES // 2, LANES))
    low, high = (
        call(builder, name, fours.type, pick(builder, total, total, half), pick(builder, words, words, half), fours)
        for half in halves
    )
    return pick(builder, low, high, range(LANES))


def _dot_of_pairs(builder: Any, total: Any, words: Any, fours: Any) -> Any:
    """With products of 16 bits, added in pairs: one instruction of x86, and known to most processors in some form."""
    halves, wide = ir.VectorType(I16, 2 * LANES), ir.VectorType(I32, 2 * LANES)
    byte = constant(halves, 8)
    words, fours = builder.bitcast(words, halves), builder.bitcast(fours, halves)
    even = builder.and_(words, constant(halves, 255)), builder.ashr(builder.shl(fours, byte), byte)
    odd = builder.lshr(words, byte), builder.ashr(fours, byte)
    for pair in (even, odd):
        products = builder.mul(*(builder.sext(factor, wide) for factor in pair))
        first, second = (pick(builder, products, products, range(k, 2 * LANES, 2)) for k in (0, 1))
        total = builder.add(total, builder.add(first, second))
    return total


@intrinsic
def scale_rows(context: Any, totals: Any, dots: Any, scale: Any, address: Any, stride: Any) -> Any:
    """totals + dots * (scale * the row's float32): float32 from integers."""

    def values(builder: Any, totals: Any, dots: Any, scale: Any, address: Any, stride: Any) -> Any:
        made = []
        for r in range(totals.type.count):
            step = splat_lanes(builder, load_lanes(builder, row_address(builder, address, stride, r), F32))
            dot = builder.sitofp(builder.extract_value(dots, r), F32X16)
            made.append(add_product(builder, dot, builder.fmul(scale, step), builder.extract_value(totals, r)))
        return made

    return operation(totals, totals, dots, FLOATS, types.int64, types.int64)(values)


@intrinsic
def multiply_add_rows(context: Any, totals: Any, weights: Any, address: Any, stride: Any, count: Any) -> Any:
    """totals + weights * the first `count` of the row's 16 float32 at the address; count None: all."""

    def values(builder: Any, totals: Any, weights: Any, address: Any, stride: Any, count: Any) -> Any:
        made = []
        for r in range(totals.type.count):
            where = row_address(builder, address, stride, r)
            whole = types.none == count_type
            x = load_lanes(builder, where, F32X16) if whole else load_lanes_part(builder, where, F32, count)
            made.append(add_product(builder, weights, x, builder.extract_value(totals, r)))
        return made

    count_type = count
    return operation(totals, totals, FLOATS, types.int64, types.int64, count)(values)


@intrinsic
def add_rows(context: Any, totals: Any, others: Any) -> Any:
    """totals + others, vector by vector."""

    def values(builder: Any, totals: Any, others: Any) -> Any:
        pairs = [(builder.extract_value(totals, r), builder.extract_value(others, r)) for r in range(totals.type.count)]
        return [builder.fadd(a, b) for a, b in pairs]

    return operation(totals, totals, totals)(values)


@intrinsic
def store_rows(context: Any, totals: Any, address: Any, stride: Any, count: Any) -> Any:
    """The first `count` lanes of totals to address + row * stride."""

    def values(builder: Any, totals: Any, address: Any, stride: Any, count: Any) -> Any:
        for r in range(totals.type.count):
            place = pointer(builder, row_address(builder, address, stride, r), F32X16)
            total = builder.extract_value(totals, r)
            one, mask = ir.Constant(I32, 1), first_lanes(builder, count)
            call(builder, "llvm.masked.store.v16f32.p0v16f32", ir.VoidType(), total, place, one, mask)

    return operation(types.void, totals, types.int64, types.int64, types.int64)(values)


@intrinsic
def store_sums(context: Any, totals: Any, address: Any, stride: Any) -> Any:
    """The sum of the lanes as one float32 to address + row * stride."""

    def values(builder: Any, totals: Any, address: Any, stride: Any) -> Any:
        for r in range(totals.type.count):
            total, half = builder.extract_value(totals, r), LANES // 2
            while half:
                upper = pick(builder, total, total, range(half, 2 * half))
                total, half = builder.fadd(pick(builder, total, total, range(half)), upper), half // 2
            total = builder.extract_element(total, ir.Constant(I32, 0))
            builder.store(total, pointer(builder, row_address(builder, address, stride, r), F32), align=1)

    return operation(types.void, totals, types.int64, types.int64)(values)
