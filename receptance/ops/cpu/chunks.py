"""How the kernels of wkv6 and wkv7 meet their tensors: STEPS tokens of one head at a time, copied to lie side by side.

A tensor is a word of a job (see `blocks`), and a head of it is `start`, where in [B, T, H, N] its first number is, and
`stride` = H N, how far it is from one token to the next.  They are copied to whole rows (see `rows`), so that the
kernels serve any N, and all at once, which the memory answers faster than one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import array_at
from .blocks import load, store
from .jit import kernel
from .maths import exp

__all__ = ["STEPS", "read_chunk", "read_first", "read_matrix", "read_transposed", "write_chunk", "write_transposed"]

# The state is kept for the backward pass once in so many steps; those between are computed again, into the
# second-level cache, which holds this many but not many more.
STEPS = 16


@kernel
def read_chunk(x: Any, job: Any, tensors: int, start: int, stride: int, num_steps: int, N: int) -> None:
    """x[m, :num_steps, :N] = so many tokens of the tensors from a word of the job on, but for those that are None.

    The second is log w, in whose place comes w.
    """
    for m in range(x.shape[0]):
        if job[tensors + 2 * m]:
            for q in range(num_steps):
                load(x[m], q, job, tensors + 2 * m, start + q * stride, N)
    for q in range(num_steps):
        w = x[1, q]
        for j in range(N):
            w[j] = exp(w[j])


@kernel
def write_chunk(x: Any, job: Any, tensor: int, start: int, stride: int, num_steps: int, N: int) -> None:
    """The tokens of a tensor, unless it is None, = x [num_steps or more, N or more]."""
    if job[tensor]:
        for q in range(num_steps):
            store(job, tensor, start + q * stride, x, q, N)


@kernel
def read_first(first: Any, job: Any, tensor: int, start: int, num_steps: int) -> None:
    """first [1, num_steps or more] = which tokens begin a document, as numbers; none where the tensor is None."""
    if job[tensor]:
        load(first, 0, job, tensor, start, num_steps)


@kernel
def read_matrix(x: Any, address: int, number: int, N: int) -> None:
    """x [N, N or more] = a matrix of [.., N, N] float32."""
    matrix = array_at(address + 4 * number * N * N, (N, N), np.float32)
    for i in range(N):
        for j in range(N):
            x[i, j] = matrix[i, j]


@kernel
def read_transposed(x: Any, address: int, number: int, N: int) -> None:
    """x [N, N or more] = a matrix of [.., N, N] float32, transposed."""
    matrix = array_at(address + 4 * number * N * N, (N, N), np.float32)
    for j in range(N):
        for i in range(N):
            x[j, i] = matrix[i, j]


@kernel
def write_transposed(x: Any, address: int, number: int, N: int) -> None:
    """A matrix of [.., N, N] float32 = x [N, N or more], transposed."""
    matrix = array_at(address + 4 * number * N * N, (N, N), np.float32)
    for i in range(N):
        for j in range(N):
            matrix[i, j] = x[j, i]
