"""`ops.read_out` on a CPU: the norm of every head, the bonus and the gate in one pass each way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from .. import operators
from .bits import array_at, float_of_bits
from .blocks import BLOCK_ROWS, BlockKernel, load, num_blocks, store
from .jit import kernel

__all__ = ["read_out"]

# Words of a job: numbers, then two words for each tensor.
NUM_ROWS, NUM_HEADS, HEAD_SIZE, BONUS_FIRST, EPS = range(5)
(
    Y, R, K, V, GATE, BONUS, WEIGHT, BIAS, OUT,
    TO_Y, TO_R, TO_K, TO_V, TO_GATE, TO_WEIGHTS,
) = range(5, 35, 2)  # fmt: skip
ONE = np.float32(1)


@kernel
def _normalise(x: Any, eps: Any) -> Any:
    """x less its mean, divided by its standard deviation; returns the divisor's reciprocal."""
    count = np.float32(x.size)
    total, squares = np.float32(0), np.float32(0)
    for c in range(x.size):
        total += x[c]
    mean = total / count
    for c in range(x.size):
        x[c] -= mean
        squares += x[c] * x[c]
    scale = ONE / np.float32(math.sqrt(squares / count + eps))
    for c in range(x.size):
        x[c] *= scale
    return scale


@kernel
def _score(r: Any, k: Any, bonus: Any) -> Any:
    total = np.float32(0)
    for c in range(r.size):
        total += r[c] * k[c] * bonus[c]
    return total


@kernel
def _read(room: Any, job: Any, place: int) -> None:
    """y, r, k, v and the gate, which is 1 where there is none."""
    for j in range(4):
        load(room, j, job, Y + 2 * j, place, room.shape[1])
    if job[GATE]:
        load(room, 4, job, GATE, place, room.shape[1])
    else:
        room[4] = 1


@kernel
def _load_weights(job: Any, num_heads: int, head_size: int) -> Any:
    """bonus, weight and bias [3, H, N]."""
    weights = np.empty((3, num_heads * head_size), np.float32)
    for j in range(3):
        load(weights, j, job, BONUS + 2 * j, 0, num_heads * head_size)
    return weights.reshape(3, num_heads, head_size)


@BlockKernel
def _forward(address: int, size: int, block: int) -> None:
    job = array_at(address, (size,), np.int64)
    num_heads, head_size = job[NUM_HEADS], job[HEAD_SIZE]
    eps = float_of_bits(np.uint32(job[EPS]))
    room, weights = np.empty((5, head_size), np.float32), _load_weights(job, num_heads, head_size)
    y, r, k, v, gate = room[0], room[1], room[2], room[3], room[4]
    for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, job[NUM_ROWS])):
        for h in range(num_heads):
            place = (row * num_heads + h) * head_size
            _read(room, job, place)
            score = _score(r, k, weights[0, h])
            before, after = (score, np.float32(0)) if job[BONUS_FIRST] else (np.float32(0), score)
            for c in range(head_size):
                y[c] += before * v[c]
            _normalise(y, eps)
            for c in range(head_size):
                y[c] = (y[c] * weights[1, h, c] + weights[2, h, c] + after * v[c]) * gate[c]
            store(job, OUT, place, room, 0, head_size)


@BlockKernel
def _backward(address: int, size: int, block: int) -> None:
    """From the gradient in OUT; those of bonus, weight and bias as sums over each block [blocks, 3, width]."""
    job = array_at(address, (size,), np.int64)
    num_heads, head_size = job[NUM_HEADS], job[HEAD_SIZE]
    width, eps = num_heads * head_size, float_of_bits(np.uint32(job[EPS]))
    room, weights = np.empty((6, head_size), np.float32), _load_weights(job, num_heads, head_size)
    sums = np.zeros((3, num_heads, head_size), np.float32)
    for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, job[NUM_ROWS])):
        for h in range(num_heads):
            place = (row * num_heads + h) * head_size
            _read(room, job, place)
            load(room, 5, job, OUT, place, head_size)
            _head_gradients(room, weights, sums, h, job[BONUS_FIRST] != 0, eps)
            for j in range(4):
                store(job, TO_Y + 2 * j, place, room, j, head_size)
            if job[GATE]:
                store(job, TO_GATE, place, room, 4, head_size)
    for j in range(3):
        store(job, TO_WEIGHTS, (block * 3 + j) * width, sums.reshape(3, width), j, width)


@kernel
def _head_gradients(room: Any, weights: Any, sums: Any, h: int, bonus_first: bool, eps: Any) -> None:
    """In the places of y, r, k, v and the gate their gradients, from the one of the output in row 5."""
    y, r, k, v, gate, gradient = room[0], room[1], room[2], room[3], room[4], room[5]
    bonus, weight, bias = weights[0, h], weights[1, h], weights[2, h]
    to_bonus, to_weight, to_bias = sums[0, h], sums[1, h], sums[2, h]
    score, count = _score(r, k, bonus), np.float32(y.size)
    before, after = (score, np.float32(0)) if bonus_first else (np.float32(0), score)
    for c in range(y.size):
        y[c] += before * v[c]
    scale = _normalise(y, eps)
    for c in range(y.size):
        read = y[c] * weight[c] + bias[c] + after * v[c]
        ungated = gradient[c] * gate[c]
        gate[c] = gradient[c] * read
        gradient[c] = ungated
    to_score, mean, along = np.float32(0), np.float32(0), np.float32(0)
    for c in range(y.size):
        to_weight[c] += gradient[c] * y[c]
        to_bias[c] += gradient[c]
    for c in range(y.size):
        to_score += gradient[c] * v[c]
        mean += gradient[c] * weight[c]
        along += gradient[c] * weight[c] * y[c]
    mean, along = mean / count, along / count
    inner = np.float32(0)
    for c in range(y.size):
        y[c] = scale * (gradient[c] * weight[c] - mean - y[c] * along)
        inner += y[c] * v[c]
    to_score = inner if bonus_first else to_score
    for c in range(y.size):
        v[c] = before * y[c] + after * gradient[c]
    for c in range(y.size):
        share_r, share_k = to_score * r[c], to_score * k[c]
        to_bonus[c] += share_r * k[c]
        r[c] = share_k * bonus[c]
        k[c] = share_r * bonus[c]


def _run_forward(
    heads: list[Tensor], gate: Tensor | None, weights: list[Tensor], eps: float, bonus_first: bool, out: Tensor
) -> None:
    _forward.run(_numbers(heads[1], eps, bonus_first), [*heads, gate, *weights, out], _blocks(heads[1]))


def _run_backward(
    heads: list[Tensor],
    gate: Tensor | None,
    weights: list[Tensor],
    eps: float,
    bonus_first: bool,
    gradient: Tensor,
    to_heads: list[Tensor],
    to_gate: Tensor | None,
    sums: Tensor,
) -> None:
    tensors = [*heads, gate, *weights, gradient, *to_heads, to_gate, sums]
    _backward.run(_numbers(heads[1], eps, bonus_first), tensors, _blocks(heads[1]))


def _blocks(r: Tensor) -> int:
    return num_blocks(r.shape[:2].numel())


def _numbers(r: Tensor, eps: float, bonus_first: bool) -> list[int]:
    """The numbers of a job; eps by its bits."""
    return [r.shape[:2].numel(), *r.shape[2:], int(bonus_first), int(np.float32(eps).view(np.int32))]


read_out = operators.read_out("", _run_forward, _run_backward, num_blocks)
