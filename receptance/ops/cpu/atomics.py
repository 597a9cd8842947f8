"""Numbers that threads share: int64 at an address; each act is indivisible, and all threads see one order of them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .lanes import I64, intrinsic, operation, pointer

__all__ = ["add", "exchange", "read", "write"]


@intrinsic
def add(context: Any, address: Any, value: Any) -> Any:
    """Add to the number; gives what was there."""
    return operation(types.int64, types.int64, types.int64)(_change("add"))


@intrinsic
def exchange(context: Any, address: Any, value: Any) -> Any:
    """Set the number; gives what was there."""
    return operation(types.int64, types.int64, types.int64)(_change("xchg"))


@intrinsic
def read(context: Any, address: Any) -> Any:
    """The number, as the other threads have left it."""

    def values(builder: Any, address: Any) -> Any:
        return builder.load_atomic(pointer(builder, address, I64), "seq_cst", 8)

    return operation(types.int64, types.int64)(values)


@intrinsic
def write(context: Any, address: Any, value: Any) -> Any:
    """Set the number, after all that was written before."""

    def values(builder: Any, address: Any, value: Any) -> None:
        builder.store_atomic(value, pointer(builder, address, I64), "seq_cst", 8)

    return operation(types.void, types.int64, types.int64)(values)


def _change(act: str) -> Any:
    def values(builder: Any, address: Any, value: Any) -> ir.Instruction:
        return builder.atomic_rmw(act, pointer(builder, address, I64), value, "seq_cst")

    return values
