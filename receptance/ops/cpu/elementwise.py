"""The short vectors of a step, each computed by one thread.

All arguments are flat float32 arrays, none of which overlaps `out`: a few rows, one after the other.  What is the same
for every row has the size of one row and is gone through once for each.  Loops count from 0 within a part that was cut
out before: with sums as indices LLVM computes one number at a time.
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
def part(x: Any, number: int, size: int) -> Any:
    """x in parts of `size`: the one of this number."""
    return x[number * size : (number + 1) * size]


@kernel
def copy(out: Any, x: Any) -> None:
    # An assignment to a slice would be compiled with checks of its shape, which takes seconds.
    for i in range(out.size):
        out[i] = x[i]


@kernel
def load(out: Any, constant: Any) -> None:
    """The constant, for each row."""
    for b in range(out.size // constant.size):
        copy(part(out, b, constant.size), constant)


@kernel
def pick(out: Any, x: Any, start: int, whole: int, size: int) -> None:
    """`size` numbers from `start` on, out of each row of `whole`."""
    for b in range(out.size // size):
        copy(part(out, b, size), part(x, b, whole)[start : start + size])


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
        result, values, factor = part(out, g, group), part(x, g, group), factors[g]
        for i in range(group):
            result[i] = factor * values[i]


@kernel
def add_constant(out: Any, x: Any, constant: Any) -> None:
    for b in range(out.size // constant.size):
        add(part(out, b, constant.size), part(x, b, constant.size), constant)


@kernel
def multiply_constant(out: Any, x: Any, constant: Any) -> None:
    for b in range(out.size // constant.size):
        multiply(part(out, b, constant.size), part(x, b, constant.size), constant)


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
    for b in range(out.size // size):
        lerp(part(out, b, size), part(start, b, size), part(end, b, size), weight)


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
    groups = weight.size // group
    for g in range(out.size // group):
        result, values = part(out, g, group), part(x, g, group)
        factors, summands = part(weight, g % groups, group), part(bias, g % groups, group)
        mean, spread = np.float32(0), np.float32(0)
        for i in range(group):
            mean += values[i]
        mean /= np.float32(group)
        for i in range(group):
            spread += (values[i] - mean) * (values[i] - mean)
        inverse = np.float32(1) / np.sqrt(spread / np.float32(group) + eps)
        for i in range(group):
            result[i] = (values[i] - mean) * inverse * factors[i] + summands[i]


@kernel
def unit_vectors(out: Any, x: Any, eps: float, group: int) -> None:
    """Each group divided by its length, or by eps where that is shorter."""
    for g in range(out.size // group):
        result, values, total = part(out, g, group), part(x, g, group), np.float32(0)
        for i in range(group):
            total += values[i] * values[i]
        inverse = np.float32(1) / max(np.sqrt(total), eps)
        for i in range(group):
            result[i] = values[i] * inverse


@kernel
def sum_groups(out: Any, x: Any, group: int) -> None:
    """The sum of each group."""
    for g in range(out.size):
        values, total = part(x, g, group), np.float32(0)
        for i in range(group):
            total += values[i]
        out[g] = total
