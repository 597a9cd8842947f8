"""`ops.delta_inputs` on a CPU: all that RWKV-7 does to its vectors before the recurrence, in one pass each way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from .. import operators
from .bits import array_at
from .blocks import BLOCK_ROWS, BlockKernel, load, num_blocks, store
from .jit import kernel
from .maths import sigmoid

__all__ = ["delta_inputs"]

# Words of a job: three numbers, then two words for each tensor.
NUM_ROWS, WIDTH, HEAD_SIZE = range(3)
(
    W, RATE, K, V, V_FIRST, SHARE, W_0, A_0, K_K, K_A, V_0,
    LOG_W, B, NEW_K, A, NEW_V,
    TO_W, TO_RATE, TO_K, TO_V, TO_V_FIRST, TO_SHARE, TO_WEIGHTS,
) = range(3, 49, 2)  # fmt: skip
# Rows of the weights in a kernel's own memory.
OF_W, OF_A, OF_K, OF_KA, OF_V = range(5)

STRONGEST = np.float32(-math.exp(-0.5))
SHORTEST = np.float32(1e-12)
ONE = np.float32(1)


@kernel
def _load_weights(job: Any, width: int) -> Any:
    """w_0, a_0, k_k, k_a, v_0 [5, C]."""
    weights = np.empty((5, width), np.float32)
    for j in range(5 if job[V_0] else 4):
        load(weights, j, job, W_0 + 2 * j, 0, width)
    return weights


@kernel
def _make_unit(x: Any) -> Any:
    """x as a unit vector; returns by what it was multiplied."""
    squares = np.float32(0)
    for c in range(x.size):
        squares += x[c] * x[c]
    scale = ONE / max(np.float32(math.sqrt(squares)), SHORTEST)
    for c in range(x.size):
        x[c] *= scale
    return scale


@BlockKernel
def _forward(address: int, size: int, block: int) -> None:
    job = array_at(address, (size,), np.int64)
    width, head_size = job[WIDTH], job[HEAD_SIZE]
    room, weights = np.empty((4, width), np.float32), _load_weights(job, width)
    w, rate, k, unit = room[0], room[1], room[2], room[3]
    for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, job[NUM_ROWS])):
        place = row * width
        for j in range(3):  # w, rate, k
            load(room, j, job, W + 2 * j, place, width)
        for c in range(width):
            w[c] = STRONGEST * sigmoid(weights[OF_W, c] + w[c])
        for c in range(width):
            rate[c] = sigmoid(weights[OF_A, c] + rate[c])
        for c in range(width):
            unit[c] = -k[c] * weights[OF_K, c]
            k[c] *= ONE + (rate[c] - ONE) * weights[OF_KA, c]
        for head in range(0, width, head_size):
            _make_unit(unit[head : head + head_size])
        for c in range(width):
            rate[c] *= -unit[c]
        for j in range(4):
            store(job, LOG_W + 2 * j, place, room, j, width)
        if job[V_FIRST]:
            _mix_values(room, weights[OF_V], job, place)


@kernel
def _mix_values(room: Any, weight: Any, job: Any, place: int) -> None:
    for j in range(3):  # v, v_first, share
        load(room, j, job, V + 2 * j, place, weight.size)
    for c in range(weight.size):
        room[0, c] += (room[1, c] - room[0, c]) * sigmoid(weight[c] + room[2, c])
    store(job, NEW_V, place, room, 0, weight.size)


@BlockKernel
def _backward(address: int, size: int, block: int) -> None:
    """From the gradients in LOG_W, NEW_K, NEW_V, A and B; those of the weights [blocks, 5, width]."""
    job = array_at(address, (size,), np.int64)
    width, head_size = job[WIDTH], job[HEAD_SIZE]
    room, weights = np.empty((8, width), np.float32), _load_weights(job, width)
    sums = np.zeros((5, width), np.float32)
    for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, job[NUM_ROWS])):
        place = row * width
        for j in range(3):  # w, rate, k
            load(room, j, job, W + 2 * j, place, width)
        for j in range(4):  # log_w, b, k, a
            load(room, 4 + j, job, LOG_W + 2 * j, place, width)
        _unit_gradients(room, weights, sums)
        for head in range(0, width, head_size):
            _vector_gradients(room[3, head : head + head_size], room[7, head : head + head_size])
        _key_gradients(room, weights, sums)
        for j in range(3):
            store(job, TO_W + 2 * j, place, room, j, width)
        if job[V_FIRST]:
            _value_gradients(room, weights[OF_V], sums[OF_V], job, place)
    for j in range(5):
        store(job, TO_WEIGHTS, (block * 5 + j) * width, sums, j, width)


@kernel
def _unit_gradients(room: Any, weights: Any, sums: Any) -> None:
    """From w, rate, k, none and the gradients of log_w, b, k and a, in their places:

    that of w, the rate, k, kappa before it is made a unit vector, and in the last that of the unit vector.
    """
    w, rate, k, unit, to_log_w, to_b, to_unit = room[0], room[1], room[2], room[3], room[4], room[5], room[7]
    for c in range(w.size):
        share = sigmoid(weights[OF_W, c] + w[c])
        w[c] = to_log_w[c] * STRONGEST * share * (ONE - share)
        sums[OF_W, c] += w[c]
    for c in range(w.size):
        rate[c] = sigmoid(weights[OF_A, c] + rate[c])
    for c in range(w.size):
        unit[c] = k[c] * weights[OF_K, c]
        to_unit[c] = to_b[c] * rate[c] - to_unit[c]


@kernel
def _vector_gradients(x: Any, gradient: Any) -> None:
    """x becomes a unit vector, and `gradient`, so far of that, the one of x as it was."""
    scale, along = _make_unit(x), np.float32(0)
    for c in range(x.size):
        along += gradient[c] * x[c]
    # Shorter vectors were not divided by their length.
    along = along if scale * SHORTEST < ONE else np.float32(0)
    for c in range(x.size):
        gradient[c] = (gradient[c] - along * x[c]) * scale


@kernel
def _key_gradients(room: Any, weights: Any, sums: Any) -> None:
    """In the places of rate and k their gradients."""
    rate, k, unit, to_b, to_k, to_kappa = room[1], room[2], room[3], room[5], room[6], room[7]
    for c in range(k.size):
        sums[OF_K, c] += to_kappa[c] * k[c]
        to_b[c] = to_b[c] * unit[c] + to_k[c] * k[c] * weights[OF_KA, c]
    for c in range(k.size):
        less = rate[c] - ONE
        sums[OF_KA, c] += to_k[c] * k[c] * less
        k[c] = to_k[c] * (ONE + less * weights[OF_KA, c]) + to_kappa[c] * weights[OF_K, c]
    for c in range(k.size):
        rate[c] *= to_b[c] * (ONE - rate[c])
        sums[OF_A, c] += rate[c]


@kernel
def _value_gradients(room: Any, weight: Any, to_weight: Any, job: Any, place: int) -> None:
    """Of v, v_first and share."""
    for j in range(3):
        load(room, j, job, V + 2 * j, place, weight.size)
    load(room, 3, job, NEW_V, place, weight.size)
    for c in range(weight.size):
        room[2, c] = sigmoid(weight[c] + room[2, c])
    for c in range(weight.size):
        share, to_v, way = room[2, c], room[3, c], room[1, c] - room[0, c]
        room[1, c] = to_v * share
        room[0, c] = to_v - room[1, c]
        room[2, c] = room[1, c] * way * (ONE - share)
        to_weight[c] += room[2, c]
    for j in range(3):
        store(job, TO_V + 2 * j, place, room, j, weight.size)


def _run_forward(vectors: list[Tensor], weights: list[Tensor], head_size: int, new: list[Tensor]) -> None:
    log_w, written, a, b, *new_v = new
    tensors = [*_all(vectors, 6), *_all(weights, 5), log_w, b, written, a, *new_v]
    num_rows, width = vectors[0].shape[:-1].numel(), vectors[0].shape[-1]
    _forward.run([num_rows, width, head_size], tensors, num_blocks(num_rows))


def _run_backward(
    vectors: list[Tensor],
    weights: list[Tensor],
    gradients: list[Tensor],
    head_size: int,
    to_vectors: list[Tensor],
    sums: Tensor,
) -> None:
    log_w, written, a, b, *new_v = gradients
    results = [log_w, b, written, a, *_all(new_v, 1), *_all(to_vectors, 6), sums]
    num_rows, width = vectors[0].shape[:-1].numel(), vectors[0].shape[-1]
    tensors = [*_all(vectors, 6), *_all(weights, 5), *results]
    _backward.run([num_rows, width, head_size], tensors, num_blocks(num_rows))


def _all(tensors: list[Tensor], count: int) -> list[Tensor | None]:
    """`tensors`, and None for each that is missing."""
    return [*tensors, *[None] * (count - len(tensors))]


delta_inputs = operators.delta_inputs("", _run_forward, _run_backward, num_blocks)
