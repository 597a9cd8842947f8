"""Bits and addresses: what Numba has no Python for.

bfloat16(bits)                   # a bfloat16, which Numba does not have, from its 16 bits
array_at(address, shape, dtype)  # the array that starts at an address
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .jit import kernel
from .lanes import intrinsic

__all__ = ["array_at", "bfloat16", "bits_of_bfloat16", "bits_of_float", "float_of_bits"]


@intrinsic
def float_of_bits(context: Any, bits: Any) -> Any:
    """The float32 that has these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def bits_of_float(context: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@kernel
def bfloat16(bits: int) -> float:
    """The value, as a float32, of a bfloat16 given as uint16."""
    value: float = float_of_bits(np.uint32(np.uint32(bits) << np.uint32(16)))
    return value


@kernel
def bits_of_bfloat16(value: float) -> np.uint16:
    """The bits, as uint16, of the bfloat16 nearest to a finite float32, ties to even."""
    bits = bits_of_float(np.float32(value))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + np.uint32((bits >> np.uint32(16)) & np.uint32(1))) >> 16)


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@kernel
def array_at(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """The contiguous array of a shape that starts at an address (int64); whoever calls keeps its memory alive."""
    return numba.carray(_pointer(address), shape, dtype)  # type: ignore[attr-defined]


@intrinsic
def call_address(context: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Call the C function of five int64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), [number] * 5).as_pointer())
        builder.call(pointer, arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate
