"""A row of float32 as one value of Numba: what the recurrences keep in registers while they step.

    shape = lanes(64)                            # outside of a kernel: how long rows are is part of their type
    state = rows(64, shape)                      # inside: memory for that many
    S = load(state, i, shape)
    S = S * w + read * b                         # of rows, and of rows with numbers
    y[i] = total(S * r)
    store(state, i, S)

LLVM cuts a row into the registers that the processor has, so this needs no instruction set.  A vectorised loop would
leave its results in memory after every step; a row stays where it is as long as there is room.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from .jit import kernel
from .lanes import LANES, intrinsic

__all__ = ["filled", "lanes", "load", "rows", "store", "total"]

# Of a row in memory, in bytes: a cache line, so that no load meets two.
_ALIGN = 64
# What `jit.FASTMATH` allows.
_FLAGS = ("reassoc", "contract", "nsz", "arcp")


class Row(types.Type):
    """Numba's type of a row of `size` float32."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"Row({size})")


@register_model(Row)
class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, row: Row) -> None:
        super().__init__(manager, row, ir.VectorType(ir.FloatType(), row.size))  # type: ignore[no-untyped-call]


def lanes(size: int) -> tuple[int, ...]:
    """The shape of rows that hold `size` numbers: a zero for each LANES of them, so that Numba sees it in the type."""
    return (0,) * (-(-size // LANES))


def _row(shape: Any) -> Row:
    return Row(LANES * len(shape))


@intrinsic
def load(context: Any, memory: Any, i: Any, shape: Any) -> Any:
    """Row number i of the memory that `rows` gave for that shape."""
    row = _row(shape)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, memory, arguments, row), align=_ALIGN)

    return row(memory, types.int64, shape), generate


@intrinsic
def store(context: Any, memory: Any, i: Any, row: Any) -> Any:
    """Write row number i of the memory that `rows` gave for its shape."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, memory, arguments, row), align=_ALIGN)
        return context.get_dummy_value()

    return types.void(memory, types.int64, row), generate


@intrinsic
def filled(context: Any, value: Any, shape: Any) -> Any:
    """A row of one number."""
    row = _row(shape)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, context.cast(builder, arguments[0], value, types.float32), row)

    return row(value, shape), generate


@intrinsic
def total(context: Any, row: Any) -> Any:
    """The sum of a row's numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, single = ir.VectorType(ir.FloatType(), row.size), ir.FloatType()
        name = f"llvm.vector.reduce.fadd.v{row.size}f32"
        function = builder.module.declare_intrinsic(name, (), ir.FunctionType(single, (single, vector)))
        return builder.call(function, (ir.Constant(single, 0.0), arguments[0]), fastmath=_FLAGS)

    return types.float32(row), generate


def _pointer(context: Any, builder: Any, memory: Any, arguments: Any, row: Row) -> Any:
    data = context.make_array(memory)(context, builder, arguments[0]).data
    # Counted in numbers: to LLVM a vector is as large as the next power of two.
    start = builder.gep(data, [builder.mul(arguments[1], ir.Constant(ir.IntType(64), row.size))])
    return builder.bitcast(start, ir.VectorType(ir.FloatType(), row.size).as_pointer())


def _splat(builder: Any, value: Any, row: Row) -> Any:
    vector = ir.VectorType(ir.FloatType(), row.size)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    first = ir.Constant(ir.VectorType(ir.IntType(32), row.size), [0] * row.size)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first)


class _RowOperator(AbstractTemplate):
    """Row with row, or row with number, gives a row."""

    def generic(self, arguments: Any, keywords: Any) -> Any:
        rows = [x for x in arguments if isinstance(x, Row)]
        others = [x for x in arguments if not isinstance(x, Row)]
        if not rows or len(arguments) != 2 or any(x != rows[0] for x in rows):
            return None
        if others and not isinstance(others[0], types.Number):
            return None
        return signature(rows[0], *(x if isinstance(x, Row) else types.float32 for x in arguments))


def _lower(generate: Any) -> Any:
    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        row = sig.return_type
        values = [
            value if isinstance(kind, Row) else _splat(builder, value, row)
            for kind, value in zip(sig.args, arguments, strict=True)
        ]
        return generate(builder)(*values, flags=_FLAGS)

    return lower


for _operator, _generate in (
    (operator.add, lambda builder: builder.fadd),
    (operator.sub, lambda builder: builder.fsub),
    (operator.mul, lambda builder: builder.fmul),
):
    infer_global(_operator)(type("RowOperator", (_RowOperator,), {"key": _operator}))
    for _kinds in ((Row, Row), (Row, types.Float), (types.Float, Row)):
        lower_builtin(_operator, *_kinds)(_lower(_generate))


@kernel
def rows(number: int, shape: Any) -> Any:
    """[number, LANES * len(shape)] float32: room for that many rows, all 0."""
    size = number * LANES * len(shape)
    memory = np.zeros(size + _ALIGN // 4, np.float32)
    skipped = (-memory.ctypes.data % _ALIGN) // 4
    return memory[skipped : skipped + size].reshape(number, LANES * len(shape))
