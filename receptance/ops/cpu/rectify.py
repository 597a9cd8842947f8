"""`ops.squared_relu` on a CPU: one pass each way, and only its input is kept for the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bits import array_at
from .blocks import BlockKernel, load, new_like, store

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


@torch.library.custom_op("receptance::squared_relu", mutates_args=())
def squared_relu(x: Tensor) -> Tensor:
    """See `ops.squared_relu`."""
    out = new_like(x)
    _forward.run([x.numel()], [x, out, None], -(-x.numel() // CHUNK))
    return out


@squared_relu.register_fake
def _(x: Tensor) -> Tensor:
    return new_like(x)


@torch.library.custom_op("receptance::squared_relu_backward", mutates_args=())
def _squared_relu_backward(x: Tensor, gradient: Tensor) -> Tensor:
    to_x = new_like(x)
    _backward.run([x.numel()], [x, gradient, to_x], -(-x.numel() // CHUNK))
    return to_x


@_squared_relu_backward.register_fake
def _(x: Tensor, gradient: Tensor) -> Tensor:
    return new_like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors
    to_x: Tensor = _squared_relu_backward(x, gradient)
    return to_x


squared_relu.register_autograd(_differentiate, setup_context=_keep)
