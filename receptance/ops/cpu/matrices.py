"""The walk of wkv6 and wkv7 through time.

    forward(N).run(numbers, tensors, num_blocks)           # see the words of a job below

A block is some heads of a row: one thread goes through the time with them in chunks, all of its heads within each, so
that what it reads of a token is one piece of memory, and the states wait in its cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import wkv6, wkv7
from .bits import array_at
from .blocks import BlockKernel
from .chunks import STEPS, read_chunk, read_first, read_matrix, read_transposed, write_chunk, write_transposed
from .jit import kernel
from .rows import lanes, rows

__all__ = ["backward", "forward"]

# Numbers of a job: TOGETHER heads are a block.
NUM_STEPS, NUM_HEADS, HEAD_SIZE, NUM_KEPT, TOGETHER = range(5)
# Tensors of both: r, log_w, k, v, a, b (None: wkv6), dy (None forward), u_t = S_{t-1} a_t of wkv7; first as float32;
# the states every STEPS steps, [B, H, NUM_KEPT, N, N] transposed.  Forward writes u and kept unless they are None.
INPUTS, FIRST, KEPT = 5, 21, 23
A, U = 13, 19
# Forward: the state, the new one, y.
START, END, Y = 25, 27, 29
# Backward: gradients of the new state, of the state, and of r, log_w, k, v, a, b.
D_END, D_START, GRADIENTS = 25, 27, 29


@kernel
def _heads_of(job: Any, block: int) -> Any:
    """The row, the first head and the number of heads of a block."""
    groups = (job[NUM_HEADS] + job[TOGETHER] - 1) // job[TOGETHER]
    head = block % groups * job[TOGETHER]
    return block // groups, head, min(job[TOGETHER], job[NUM_HEADS] - head)


@kernel
def _forward_heads(job: Any, block: int, shape: Any) -> None:
    n, head, num_heads = _heads_of(job, block)
    T, H, N, num_kept = job[NUM_STEPS], job[NUM_HEADS], job[HEAD_SIZE], job[NUM_KEPT]
    steps = min(STEPS, T)
    S = rows(num_heads * N, shape).reshape(num_heads, N, -1)
    x = rows(6 * (steps + 1), shape).reshape(6, steps + 1, -1)
    y, u, first = rows(steps, shape), rows(steps, shape), np.zeros((1, steps), np.float32)
    for g in range(num_heads):
        read_transposed(S[g], job[START], n * H + head + g, N)
    for t in range(0, T, STEPS):
        num_steps = min(STEPS, T - t)
        read_first(first, job, FIRST, n * T + t, num_steps)
        for g in range(num_heads):
            start = ((n * T + t) * H + head + g) * N
            write_chunk(S[g], job, KEPT, ((n * H + head + g) * num_kept + t // STEPS) * N * N, N, N, N)
            read_chunk(x, job, INPUTS, start, H * N, num_steps, N)
            if job[A]:
                wkv7.forward_steps(S[g], first[0], x[0], x[1], x[2], x[3], x[4], x[5], y, u, num_steps, shape)
            else:
                wkv6.forward_steps(S[g], first[0], x[0], x[1], x[2], x[3], y, num_steps, shape)
            write_chunk(y, job, Y, start, H * N, num_steps, N)
            write_chunk(u, job, U, start, H * N, num_steps, N)
    for g in range(num_heads):
        write_transposed(S[g], job[END], n * H + head + g, N)


@kernel
def _backward_heads(job: Any, block: int, shape: Any) -> None:
    n, head, num_heads = _heads_of(job, block)
    T, H, N, num_kept = job[NUM_STEPS], job[NUM_HEADS], job[HEAD_SIZE], job[NUM_KEPT]
    steps = min(STEPS, T)
    D = rows(num_heads * N, shape).reshape(num_heads, N, -1)
    # A row more than a state has between the states, lest they all meet in the same lines of the cache; one more state,
    # the empty one.
    distance = N + 1
    S = rows((steps + 2) * distance, shape)
    x, gradients = rows(8 * steps, shape).reshape(8, steps, -1), rows(6 * steps, shape).reshape(6, steps, -1)
    first = np.zeros((1, steps), np.float32)
    for g in range(num_heads):
        read_matrix(D[g], job[D_END], n * H + head + g, N)
    for c in range(num_kept - 1, -1, -1):
        t = c * STEPS
        num_steps = min(STEPS, T - t)
        read_first(first, job, FIRST, n * T + t, num_steps)
        for g in range(num_heads):
            start = ((n * T + t) * H + head + g) * N
            read_transposed(S, job[KEPT], (n * H + head + g) * num_kept + c, N)
            read_chunk(x, job, INPUTS, start, H * N, num_steps, N)
            if job[A]:
                wkv7.replay(S, distance, first[0], x[1], x[2], x[3], x[5], x[7], N, num_steps, shape)
            else:
                wkv6.replay(S, distance, first[0], x[1], x[2], x[3], N, num_steps, shape)
            for q in range(num_steps - 1, -1, -1):
                before = (steps + 1 if first[0, q] else q) * distance
                if job[A]:
                    after = (q + 1) * distance
                    wkv7.backward_step(D[g], S, before, after, q, x, x[7], x[6], gradients, N, shape)
                else:
                    wkv6.backward_step(D[g], S, before, q, x, x[6], gradients, N, shape)
                if first[0, q]:
                    D[g] = 0
            for m in range(6):
                write_chunk(gradients[m], job, GRADIENTS + 2 * m, start, H * N, num_steps, N)
    for g in range(num_heads):
        write_chunk(D[g], job, D_START, (n * H + head + g) * N * N, N, N, N)


@cache
def forward(head_size: int) -> BlockKernel:
    """The kernel forward, for heads of such a size, rounded up."""
    return _forward(lanes(head_size))


@cache
def backward(head_size: int) -> BlockKernel:
    """The kernel backward."""
    return _backward(lanes(head_size))


@cache
def _forward(shape: tuple[int, ...]) -> BlockKernel:
    def run(address: int, size: int, block: int) -> None:
        _forward_heads(array_at(address, (size,), np.int64), block, shape)

    return BlockKernel(run)


@cache
def _backward(shape: tuple[int, ...]) -> BlockKernel:
    def run(address: int, size: int, block: int) -> None:
        _backward_heads(array_at(address, (size,), np.int64), block, shape)

    return BlockKernel(run)
