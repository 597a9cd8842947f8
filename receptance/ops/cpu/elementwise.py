"""The short vectors of a step, each computed by one thread.

All arguments are flat float32 arrays, none of which overlaps `out`: a few rows, one after the other.  What is the same
for every row has the size of one row and is gone through once for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at, bfloat16
from .jit import kernel
from .maths import exp, sigmoid, tanh
from .storage import FLOAT32


@kernel
def embed(out: Any, address: int, kind: int, token: int) -> None:
    """The token's row of the embedding that lies at an address, in float32 or bfloat16."""
    size = out.size
    if kind == FLOAT32:
        row = array_at(address + 4 * token * size, (size,), np.float32)
        for i in range(size):
            out[i] = row[i]
    else:
        bits = array_at(address + 2 * token * size, (size,), np.uint16)
        for i in range(size):
            out[i] = bfloat16(bits[i])


@kernel
def load(out: Any, constant: Any) -> None:
    """The constant, for each row."""
    size = constant.size
    for start in range(0, out.size, size):
        for i in range(size):
            out[start + i] = constant[i]


@kernel
def pick(out: Any, x: Any, start: int, whole: int, size: int) -> None:
    """`size` numbers from `start` on, out of each row of `whole`."""
    for b in range(out.size // size):
        for i in range(size):
            out[b * size + i] = x[b * whole + start + i]


@kernel
def add(out: Any, x: Any, y: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] + y[i]


@kernel
def multiply(out: Any, x: Any, y: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] * y[i]


@kernel
def multiply_groups(out: Any, factors: Any, x: Any, group: int) -> None:
    """Every group of x times its own factor."""
    for g in range(factors.size):
        for i in range(g * group, (g + 1) * group):
            out[i] = factors[g] * x[i]


@kernel
def add_constant(out: Any, x: Any, constant: Any) -> None:
    size = constant.size
    for start in range(0, out.size, size):
        for i in range(size):
            out[start + i] = x[start + i] + constant[i]


@kernel
def multiply_constant(out: Any, x: Any, constant: Any) -> None:
    size = constant.size
    for start in range(0, out.size, size):
        for i in range(size):
            out[start + i] = x[start + i] * constant[i]


@kernel
def scale(out: Any, x: Any, factor: float, summand: float) -> None:
    for i in range(out.size):
        out[i] = x[i] * factor + summand


@kernel
def lerp(out: Any, start: Any, end: Any, weight: Any) -> None:
    for i in range(out.size):
        out[i] = start[i] + (end[i] - start[i]) * weight[i]


@kernel
def lerp_constant(out: Any, start: Any, end: Any, weight: Any) -> None:
    size = weight.size
    for row in range(0, out.size, size):
        for i in range(size):
            out[row + i] = start[row + i] + (end[row + i] - start[row + i]) * weight[i]


@kernel
def exponential(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = exp(x[i])


@kernel
def hyperbolic_tangent(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = tanh(x[i])


@kernel
def logistic(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = sigmoid(x[i])


@kernel
def silu(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] * sigmoid(x[i])


@kernel
def rectify(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = max(x[i], np.float32(0))


@kernel
def square(out: Any, x: Any) -> None:
    for i in range(out.size):
        out[i] = x[i] * x[i]


@kernel
def norm(out: Any, x: Any, weight: Any, bias: Any, eps: float, group: int) -> None:
    """Each group with mean 0 and variance 1, times weight, plus bias; those have the size of one row."""
    size = weight.size
    for start in range(0, out.size, group):
        mean, spread = np.float32(0), np.float32(0)
        for i in range(start, start + group):
            mean += x[i]
        mean /= np.float32(group)
        for i in range(start, start + group):
            spread += (x[i] - mean) * (x[i] - mean)
        inverse = np.float32(1) / np.sqrt(spread / np.float32(group) + eps)
        channel = start % size
        for i in range(group):
            out[start + i] = (x[start + i] - mean) * inverse * weight[channel + i] + bias[channel + i]


@kernel
def unit_vectors(out: Any, x: Any, eps: float, group: int) -> None:
    """Each group divided by its length, or by eps where that is shorter."""
    for start in range(0, out.size, group):
        total = np.float32(0)
        for i in range(start, start + group):
            total += x[i] * x[i]
        inverse = np.float32(1) / max(np.sqrt(total), eps)
        for i in range(start, start + group):
            out[i] = x[i] * inverse


@kernel
def sum_groups(out: Any, x: Any, group: int) -> None:
    """The sum of each group."""
    for g in range(out.size):
        total = np.float32(0)
        for i in range(g * group, (g + 1) * group):
            total += x[i]
        out[g] = total
