"""What products read in place of plain activations: rounded to int8, or listed without zeros.

Both lie at an address, for a number of rows at once; `storage` says how much memory they need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .jit import kernel
from .storage import GROUP, LIST_END
from .vectors import round_group

__all__ = ["list_inputs", "listed_at", "round_activations", "rounded_at"]

# The share of zeros from which on it is faster to leave their weights out than to read all in one stream.
LEAST_ZEROS = 0.6


@kernel
def rounded_at(address: int, num_rows: int, num_in: int) -> Any:
    """Rounded activations: int8 [B, in], and for each group a scale and a sum, float32 and int32 [B, in / 32]."""
    groups = num_in // GROUP
    scales = address + num_rows * num_in
    sums = scales + 4 * num_rows * groups
    return (
        array_at(address, (num_rows, num_in), np.int8),
        array_at(scales, (num_rows, groups), np.float32),
        array_at(sums, (num_rows, groups), np.int32),
    )


@kernel
def listed_at(address: int, num_rows: int, num_in: int) -> Any:
    """Listed activations: inputs int32 and activations float32 [B, in + LIST_END], and how many there are int32 [B]."""
    places = num_in + LIST_END
    factors = address + 4 * num_rows * places
    return (
        array_at(address, (num_rows, places), np.int32),
        array_at(factors, (num_rows, places), np.float32),
        array_at(factors + 4 * num_rows * places, (num_rows,), np.int32),
    )


@kernel
def round_activations(x: Any, xq: Any, sx: Any, sums: Any) -> None:
    """x [B, in] float32 to xq [B, in] int8 and sx [B, in/32] float32, x ~ xq sx; sums [B, in/32] int32 of xq.

    All of them are contiguous.
    """
    num_rows, num_groups = sx.shape
    source, target = x.ctypes.data, xq.ctypes.data
    for b in range(num_rows):
        for g in range(num_groups):
            largest, sums[b, g] = round_group(source, target)
            sx[b, g] = np.float32(largest / np.float32(127))
            source, target = source + 4 * GROUP, target + GROUP


@kernel
def list_inputs(x: Any, skip: bool, inputs: Any, factors: Any) -> int:
    """List the inputs of a row x [in] that count, in their order, and their activations; returns their number.

    With `skip` and enough zeros those are left out.  Behind the list stand its first inputs as rows of the next panel:
    what is worth asking for ahead.
    """
    zeros = 0
    for j in range(x.size):
        zeros += x[j] == 0
    count = np.int64(0)
    if skip and zeros >= LEAST_ZEROS * x.size:
        for j in range(x.size):
            # Without a branch: whether an input is 0 cannot be foreseen.
            inputs[count], factors[count] = j, x[j]
            count += x[j] != 0
    else:
        count += x.size
        for j in range(x.size):
            inputs[j], factors[j] = j, x[j]
    for n in range(LIST_END):
        inputs[count + n] = x.size + (inputs[n] if n < count else 0)
    return count  # type: ignore[return-value]
