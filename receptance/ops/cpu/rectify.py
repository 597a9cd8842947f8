"""`ops.squared_relu` on a CPU: one pass each way, and only its input is kept for the way back."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .. import operators
from .bits import array_at
from .blocks import BlockKernel, load, store

__all__ = ["squared_relu"]

SIZE, X, OUT, TO_X = 0, 1, 3, 5
CHUNK = 4096


@BlockKernel
def _forward(address: int, size: int, block: int) -> None:
    job, room = array_at(address, (size,), np.int64), np.empty((1, CHUNK), np.float32)
    start = block * CHUNK
    count = min(CHUNK, job[SIZE] - start)
    load(room, 0, job, X, start, count)
    for c in range(count):
        x = max(room[0, c], np.float32(0))
        room[0, c] = x * x
    store(job, OUT, start, room, 0, count)


@BlockKernel
def _backward(address: int, size: int, block: int) -> None:
    """From the gradient in OUT."""
    job, room = array_at(address, (size,), np.int64), np.empty((2, CHUNK), np.float32)
    start = block * CHUNK
    count = min(CHUNK, job[SIZE] - start)
    load(room, 0, job, X, start, count)
    load(room, 1, job, OUT, start, count)
    for c in range(count):
        room[1, c] *= np.float32(2) * max(room[0, c], np.float32(0))
    store(job, TO_X, start, room, 1, count)


def _run_forward(x: Tensor, y: Tensor) -> None:
    _forward.run([x.numel()], [x, y, None], -(-x.numel() // CHUNK))


def _run_backward(x: Tensor, gradient: Tensor, to_x: Tensor) -> None:
    _backward.run([x.numel()], [x, gradient, to_x], -(-x.numel() // CHUNK))


squared_relu = operators.squared_relu("", _run_forward, _run_backward)
