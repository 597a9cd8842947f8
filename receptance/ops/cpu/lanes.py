"""LLVM's vectors of 16 numbers of 32 bits: the types that Numba knows them by, and code that is written for them.

What stands in `vectors` and `row_vectors` is made of these; `builder` is llvmlite's throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import register_model

__all__ = [
    "ELEMENTS",
    "F32",
    "F32X16",
    "FLOATS",
    "I8",
    "I16",
    "I32",
    "I32X16",
    "I64",
    "INTEGERS",
    "LANES",
    "add_product",
    "call",
    "constant",
    "first_lanes",
    "intrinsic",
    "literal_intrinsic",
    "load_lanes",
    "load_lanes_part",
    "operation",
    "pick",
    "pointer",
    "row_address",
    "splat_lanes",
    "widen",
]

# An intrinsic is called with other arguments than its function has, of which no type checker can know.
Decorator = Callable[[Callable[..., Any]], Any]
intrinsic: Decorator = numba_intrinsic


def literal_intrinsic(function: Any) -> Any:
    """An intrinsic that is told the values of the constants it is called with."""
    return numba_intrinsic(prefer_literal=True)(function)


LANES = 16
I8, I16, I32, I64, F32 = *(ir.IntType(width) for width in (8, 16, 32, 64)), ir.FloatType()
F32X16, I32X16 = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)


class Vector(types.Type):
    """Numba's type of 16 numbers of 32 bits."""

    def __init__(self, name: str, lanes: ir.VectorType):
        self.lanes = lanes
        super().__init__(name=name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector):
        super().__init__(manager, vector, vector.lanes)  # type: ignore[no-untyped-call]


FLOATS, INTEGERS = Vector("float32x16", F32X16), Vector("int32x16", I32X16)

# What 16 elements in memory are, and what they become when they are loaded; uint16 stands for bfloat16.
ELEMENTS = {
    types.float32: (F32, FLOATS),
    types.uint16: (I16, FLOATS),
    types.uint8: (I8, INTEGERS),
    types.uint32: (I32, INTEGERS),
}


def operation(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], tuple[Any, Callable[..., Any]]]:
    """What an intrinsic returns, from `values(builder, *arguments)`: it gives the result, or a list for a tuple."""

    def of(values: Callable[..., Any]) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            made = values(builder, *operands)
            if isinstance(made, list):
                return context.make_tuple(builder, result, made)
            return context.get_dummy_value() if result == types.void else made

        return result(*arguments), generate

    return of


def constant(lanes: ir.VectorType, number: float) -> ir.Constant:
    """One number in all lanes."""
    return ir.Constant(lanes, [number] * lanes.count)


def splat_lanes(builder: Any, value: Any, count: int = LANES) -> Any:
    """One value in all lanes."""
    lanes = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, first, constant(ir.VectorType(I32, count), 0))


def pick(builder: Any, a: Any, b: Any, lanes: list[int] | range) -> Any:
    """Lanes of a and b, numbered through."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def call(builder: Any, name: str, result: ir.Type, *arguments: Any) -> Any:
    """Call a function that LLVM knows."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def pointer(builder: Any, address: Any, element: ir.Type) -> Any:
    """An address as a pointer."""
    return builder.inttoptr(address, element.as_pointer())


def row_address(builder: Any, address: Any, stride: Any, row: int) -> Any:
    """Where a row starts."""
    return builder.add(address, builder.mul(stride, ir.Constant(I64, row)))


def load_lanes(builder: Any, address: Any, element: ir.Type) -> Any:
    """A value or vector from an address.  Nothing need be aligned: weights may lie anywhere in a file."""
    return builder.load(pointer(builder, address, element), align=1)


def load_lanes_part(builder: Any, address: Any, element: ir.Type, count: Any) -> Any:
    """The first `count` of 16 elements and 0 for the others, which are not read."""
    lanes = ir.VectorType(element, LANES)
    name = f"llvm.masked.load.v16{element.intrinsic_name}.p0v16{element.intrinsic_name}"
    place, one = pointer(builder, address, lanes), ir.Constant(I32, 1)
    return call(builder, name, lanes, place, one, first_lanes(builder, count), ir.Constant(lanes, None))


def first_lanes(builder: Any, count: Any) -> Any:
    """A mask of the first `count` lanes."""
    numbers = ir.Constant(I32X16, list(range(LANES)))
    return builder.icmp_signed("<", numbers, splat_lanes(builder, builder.trunc(count, I32)))


def widen(builder: Any, loaded: Any) -> Any:
    """Loaded lanes as numbers of 32 bits."""
    element = loaded.type.element
    if element in (F32, I32):
        return loaded
    wide = builder.zext(loaded, I32X16)
    return builder.bitcast(builder.shl(wide, constant(I32X16, 16)), F32X16) if element == I16 else wide


def add_product(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the processor can."""
    return call(builder, "llvm.fmuladd.v16f32", F32X16, a, b, c)
