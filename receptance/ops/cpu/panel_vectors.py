"""A panel of 128 outputs in registers, to which weights are added one input after the other.

    totals = load_panel(address)                                    # 8 vectors of 16 float32
    totals = add_row(totals, weights, scales, factor, np.uint8)     # plus the 128 weights of an input, times a float32
    store_panel(totals, address)

The last argument tells the format: float32, uint16 (BFLOAT16), uint8 (INT8) or uint32 (INT4).  The first two have no
scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from .features import has
from .lanes import (
    ELEMENTS,
    F32,
    F32X16,
    FLOATS,
    I16,
    I32,
    I32X16,
    I64,
    LANES,
    add_product,
    call,
    constant,
    intrinsic,
    load_lanes,
    operation,
    pick,
    pointer,
    splat_lanes,
    widen,
)
from .storage import GROUP, PANEL

__all__ = ["add_row", "has_scales", "load_panel", "row_bytes", "store_panel"]

PARTS, GROUPS = PANEL // LANES, PANEL // GROUP
TOTALS = types.UniTuple(FLOATS, PARTS)
# The bits of 2^23: a number below 2^23 put into them is a float without conversion, larger by 2^23.
MAGIC = 0x4B000000


@intrinsic
def load_panel(context: Any, address: Any) -> Any:
    """128 float32."""

    def values(builder: Any, address: Any) -> Any:
        return [load_lanes(builder, _part(builder, address, 4 * LANES, part), F32X16) for part in range(PARTS)]

    return operation(TOTALS, types.int64)(values)


@intrinsic
def store_panel(context: Any, totals: Any, address: Any) -> Any:
    """128 float32."""

    def values(builder: Any, totals: Any, address: Any) -> Any:
        for part in range(PARTS):
            place = pointer(builder, _part(builder, address, 4 * LANES, part), F32X16)
            builder.store(builder.extract_value(totals, part), place, align=1)

    return operation(types.void, TOTALS, types.int64)(values)


@intrinsic
def row_bytes(context: Any, dtype: Any) -> Any:
    """What the 128 weights of an input take."""
    return operation(types.int64, dtype)(lambda builder, _: ir.Constant(I64, _row_bytes(dtype)))


@intrinsic
def has_scales(context: Any, dtype: Any) -> Any:
    """Whether a format has scales."""
    return operation(types.boolean, dtype)(lambda builder, _: ir.Constant(ir.IntType(1), int(_is_whole(dtype))))


@intrinsic
def add_row(context: Any, totals: Any, weights: Any, scales: Any, factor: Any, dtype: Any) -> Any:
    """Totals plus the 128 weights at an address, times a float32; scales: the address of four, where there are any."""
    element, _ = ELEMENTS[dtype.dtype]

    def values(builder: Any, totals: Any, weights: Any, scales: Any, factor: Any, _: Any) -> Any:
        if element == I32:
            part_of, unit = _nibbles(builder, weights)
        else:
            part_of, unit = _numbers(builder, weights, element), None
        factors = [splat_lanes(builder, factor)] * GROUPS
        if _is_whole(dtype):
            factors = _scaled(builder, scales, factor, unit)
        return [
            add_product(builder, part_of(part), factors[part * LANES // GROUP], builder.extract_value(totals, part))
            for part in range(PARTS)
        ]

    return operation(TOTALS, TOTALS, types.int64, types.int64, types.float32, dtype)(values)


def _is_whole(dtype: Any) -> bool:
    return dtype.dtype in (types.uint8, types.uint32)


def _row_bytes(dtype: Any) -> int:
    return PANEL // 2 if dtype.dtype == types.uint32 else PANEL * dtype.dtype.bitwidth // 8


def _part(builder: Any, address: Any, part_bytes: int, part: int) -> Any:
    return builder.add(address, ir.Constant(I64, part_bytes * part))


def _numbers(builder: Any, weights: Any, element: Any) -> Callable[[int], Any]:
    """The parts of a row that has a number after the other."""

    def part_of(part: int) -> Any:
        place = _part(builder, weights, LANES * element_bytes, part)
        loaded = widen(builder, load_lanes(builder, place, ir.VectorType(element, LANES)))
        return _less(builder, loaded, 128) if loaded.type == I32X16 else loaded

    element_bytes = 4 if element == F32 else element.width // 8
    return part_of


def _nibbles(builder: Any, weights: Any) -> tuple[Callable[[int], Any], list[float] | None]:
    """The parts of a row of INT4: part n is in the n-th four bits of 16 words; and what is to be multiplied with."""
    words = load_lanes(builder, weights, I32X16)
    if has("avx512f"):
        # Of an index, this instruction looks at four bits.
        table = ir.Constant(F32X16, [q - 8.0 for q in range(16)])

        def look_up(part: int) -> Any:
            moved = builder.lshr(words, constant(I32X16, 4 * part))
            return call(builder, "llvm.x86.avx512.permvar.sf.512", F32X16, table, moved)

        return look_up, None
    # Where the bits of a group are left standing: each comes out as a float that is larger by so many powers of two.
    places = (0, 8, 16, 16)

    def part_of(part: int) -> Any:
        place = places[part * LANES // GROUP]
        moved = builder.lshr(words, constant(I32X16, 4 * part - place))
        return _less(builder, builder.and_(moved, constant(I32X16, 15 << place)), 8 << place)

    return part_of, [2.0**-place for place in places]


def _less(builder: Any, numbers: Any, offset: int) -> Any:
    """Numbers below 2^23 less an offset, as float32."""
    floats = builder.bitcast(builder.or_(numbers, constant(I32X16, MAGIC)), F32X16)
    return builder.fsub(floats, constant(F32X16, 2.0**23 + offset))


def _scaled(builder: Any, scales: Any, factor: Any, unit: list[float] | None) -> list[Any]:
    """Four scales times a factor, and times `unit`: each in all lanes."""
    bits = builder.zext(load_lanes(builder, scales, ir.VectorType(I16, GROUPS)), ir.VectorType(I32, GROUPS))
    bits = builder.shl(bits, constant(bits.type, 16))
    made = builder.bitcast(bits, ir.VectorType(F32, GROUPS))
    made = builder.fmul(made, splat_lanes(builder, factor, GROUPS))
    if unit is not None:
        made = builder.fmul(made, ir.Constant(made.type, unit))
    return [pick(builder, made, made, [group] * LANES) for group in range(GROUPS)]
