"""Vectors of 16 numbers inside kernels, where the compiler must choose neither the order of a sum nor the instruction.

    total = load(address, np.float32)                    # 16 numbers as one value; an address is an int64, in bytes
    store(address, multiply(load(weights, np.uint16), splat(c)))

LLVM splits them for processors with narrower registers: on each, the same lanes are added in the same order wherever
the code stands.  The element type tells what is loaded: float32 and uint16 (bfloat16) become a vector of float32, uint8
and uint32 one of int32.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .lanes import (
    ELEMENTS,
    F32,
    F32X16,
    FLOATS,
    I8,
    I16,
    I32,
    I32X16,
    I64,
    INTEGERS,
    LANES,
    call,
    constant,
    intrinsic,
    literal_intrinsic,
    load_lanes,
    load_lanes_part,
    operation,
    pointer,
    row_address,
    splat_lanes,
    widen,
)

__all__ = [
    "LANES",
    "bits",
    "load",
    "load_part",
    "minus",
    "multiply",
    "prefetch",
    "room",
    "round_group",
    "size_of",
    "splat",
    "store",
    "store_transposed",
]


@intrinsic
def size_of(context: Any, dtype: Any) -> Any:
    """The bytes of one element."""

    def values(builder: Any, _: Any) -> Any:
        return ir.Constant(I64, dtype.dtype.bitwidth // 8)

    return operation(types.int64, dtype)(values)


@intrinsic
def load(context: Any, address: Any, dtype: Any) -> Any:
    """16 numbers."""
    element, vector = ELEMENTS[dtype.dtype]

    def values(builder: Any, address: Any, _: Any) -> Any:
        return widen(builder, load_lanes(builder, address, ir.VectorType(element, LANES)))

    return operation(vector, types.int64, dtype)(values)


@intrinsic
def load_part(context: Any, address: Any, dtype: Any, count: Any) -> Any:
    """The first `count` of 16 numbers, and 0 for the others, which are not read."""
    element, vector = ELEMENTS[dtype.dtype]

    def values(builder: Any, address: Any, _: Any, count: Any) -> Any:
        return widen(builder, load_lanes_part(builder, address, element, count))

    return operation(vector, types.int64, dtype, types.int64)(values)


@intrinsic
def store(context: Any, address: Any, vector: Any) -> Any:
    """16 float32 to an address."""

    def values(builder: Any, address: Any, vector: Any) -> Any:
        builder.store(vector, pointer(builder, address, F32X16), align=1)

    return operation(types.void, types.int64, FLOATS)(values)


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Ask for the 64 bytes at an address, which may lie outside of all memory."""

    def values(builder: Any, address: Any) -> Any:
        read, keep, data = (ir.Constant(I32, number) for number in (0, 3, 1))
        call(builder, "llvm.prefetch.p0i8", ir.VoidType(), pointer(builder, address, I8), read, keep, data)

    return operation(types.void, types.int64)(values)


@intrinsic
def splat(context: Any, value: Any) -> Any:
    """A float32 in all lanes."""
    return operation(FLOATS, types.float32)(splat_lanes)


@intrinsic
def multiply(context: Any, a: Any, b: Any) -> Any:
    """a * b."""

    def values(builder: Any, a: Any, b: Any) -> Any:
        return builder.fmul(a, b)

    return operation(FLOATS, FLOATS, FLOATS)(values)


@literal_intrinsic
def room(context: Any, num_bytes: Any) -> Any:
    """The address of so many bytes, a constant, that are the caller's until it returns."""

    def values(builder: Any, _: Any) -> Any:
        memory = cgutils.alloca_once(builder, ir.ArrayType(I64, num_bytes.literal_value // 8))
        return builder.ptrtoint(memory, I64)

    return operation(types.int64, num_bytes)(values)


@intrinsic
def bits(context: Any, vector: Any, shift: Any, mask: Any) -> Any:
    """(vector >> shift) & mask."""

    def values(builder: Any, vector: Any, shift: Any, mask: Any) -> Any:
        return builder.and_(builder.lshr(vector, splat_lanes(builder, shift)), splat_lanes(builder, mask))

    return operation(INTEGERS, INTEGERS, types.int32, types.int32)(values)


@intrinsic
def minus(context: Any, vector: Any, offset: Any) -> Any:
    """Integers less an offset, as float32."""

    def values(builder: Any, vector: Any, offset: Any) -> Any:
        return builder.sitofp(builder.sub(vector, splat_lanes(builder, offset)), F32X16)

    return operation(FLOATS, INTEGERS, types.int32)(values)


@intrinsic
def round_group(context: Any, source: Any, target: Any) -> Any:
    """32 float32 at `source` to int8 at `target`; gives their largest magnitude, which becomes 127, and the int8's sum.

    The magnitude is NaN where one of them is.
    """

    def values(builder: Any, source: Any, target: Any) -> Any:
        places = [row_address(builder, source, ir.Constant(I64, 4 * LANES), half) for half in range(2)]
        halves = [load_lanes(builder, place, F32X16) for place in places]
        # Magnitudes are in the order of their bits, NaN above all others.
        magnitudes = [builder.and_(builder.bitcast(half, I32X16), constant(I32X16, 0x7FFFFFFF)) for half in halves]
        top = builder.select(builder.icmp_unsigned(">", *magnitudes), *magnitudes)
        largest = builder.bitcast(call(builder, "llvm.vector.reduce.umax.v16i32", I32, top), F32)
        is_zero = builder.fcmp_ordered("==", largest, ir.Constant(F32, 0.0))
        inverse = builder.select(is_zero, ir.Constant(F32, 0.0), builder.fdiv(ir.Constant(F32, 127.0), largest))
        total = ir.Constant(I32, 0)
        for number, half in enumerate(halves):
            scaled = call(builder, "llvm.rint.v16f32", F32X16, builder.fmul(half, splat_lanes(builder, inverse)))
            whole = builder.fptosi(scaled, I32X16)
            narrow = builder.trunc(whole, ir.VectorType(I8, LANES))
            place = builder.add(target, ir.Constant(I64, LANES * number))
            builder.store(narrow, pointer(builder, place, narrow.type), align=1)
            total = builder.add(total, call(builder, "llvm.vector.reduce.add.v16i32", I32, whole))
        return [largest, total]

    return operation(types.Tuple((types.float32, types.int32)), types.int64, types.int64)(values)


@intrinsic
def store_transposed(context: Any, source: Any, target: Any, stride: Any, dtype: Any) -> Any:
    """[16, 16] float32 at `source`, transposed, to 16 rows `stride` bytes apart of float32 or, for uint16, bfloat16."""

    def values(builder: Any, source: Any, target: Any, stride: Any, _: Any) -> Any:
        rows = [load_lanes(builder, builder.add(source, ir.Constant(I64, 64 * k)), F32X16) for k in range(LANES)]
        for r, row in enumerate(_transpose(builder, rows)):
            lanes = row if dtype.dtype == types.float32 else _narrow(builder, row)
            builder.store(lanes, pointer(builder, row_address(builder, target, stride, r), lanes.type), align=1)

    return operation(types.void, types.int64, types.int64, types.int64, dtype)(values)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Blocks off the diagonal change places, smaller ones each time."""
    size = LANES // 2
    while size:
        rows = [
            builder.shuffle_vector(rows[r & ~size], rows[r | size], _exchange(size, upper=bool(r & size)))
            for r in range(LANES)
        ]
        size //= 2
    return rows


def _exchange(size: int, upper: bool) -> ir.Constant:
    """Of two rows, numbered through, the lanes that one of them has after blocks of `size` were exchanged."""
    own = [lane | size if upper else lane & ~size for lane in range(LANES)]
    chosen = [column + (LANES if lane & size else 0) for lane, column in enumerate(own)]
    return ir.Constant(I32X16, chosen)


def _narrow(builder: Any, floats: Any) -> Any:
    """16 finite float32 as the nearest bfloat16, ties to even."""
    words = builder.bitcast(floats, I32X16)
    sixteen, half = constant(I32X16, 16), constant(I32X16, 0x7FFF)
    odd = builder.and_(builder.lshr(words, sixteen), constant(I32X16, 1))
    return builder.trunc(builder.lshr(builder.add(words, builder.add(half, odd)), sixteen), ir.VectorType(I16, LANES))
