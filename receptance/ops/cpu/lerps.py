"""`ops.lerps` on a CPU: all the mixtures of two inputs in one pass over them, forward and backward."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .. import operators
from .bits import array_at
from .blocks import BLOCK_ROWS, KINDS, TILE_WIDTH, BlockKernel, load, num_blocks, store

__all__ = ["lerps"]

# Words of a job; from WEIGHTS on the weights, then the mixtures or their gradients, two words each.
NUM_ROWS, WIDTH, NUM_MIXES, START, END, OFFSETS, TO_START, TO_END, TO_OFFSETS, TO_WEIGHTS, WEIGHTS = (
    0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 17
)  # fmt: skip


@BlockKernel
def _forward(address: int, size: int, block: int) -> None:
    """start, end, outputs [rows, width]; weights [width]; offsets [mixes, rows, width]."""
    job = array_at(address, (size,), np.int64)
    num_rows, width, num_mixes = job[NUM_ROWS], job[WIDTH], job[NUM_MIXES]
    room, weights = np.zeros((4, TILE_WIDTH), np.float32), np.empty((num_mixes, TILE_WIDTH), np.float32)
    for left in range(0, width, TILE_WIDTH):
        tile = min(TILE_WIDTH, width - left)
        for j in range(num_mixes):
            load(weights, j, job, WEIGHTS + 2 * j, left, tile)
        for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_rows)):
            place = row * width + left
            load(room, 0, job, START, place, tile)
            load(room, 1, job, END, place, tile)
            for j in range(num_mixes):
                if job[OFFSETS]:
                    load(room, 2, job, OFFSETS, j * num_rows * width + place, tile)
                for c in range(tile):
                    weight = weights[j, c] + room[2, c]
                    room[3, c] = room[0, c] + (room[1, c] - room[0, c]) * weight
                store(job, WEIGHTS + 2 * (num_mixes + j), place, room, 3, tile)


@BlockKernel
def _backward(address: int, size: int, block: int) -> None:
    job = array_at(address, (size,), np.int64)
    num_rows, width, num_mixes = job[NUM_ROWS], job[WIDTH], job[NUM_MIXES]
    room = np.zeros((6, TILE_WIDTH), np.float32)
    weights, sums = np.empty((num_mixes, TILE_WIDTH), np.float32), np.empty((num_mixes, TILE_WIDTH), np.float32)
    for left in range(0, width, TILE_WIDTH):
        tile = min(TILE_WIDTH, width - left)
        for j in range(num_mixes):
            load(weights, j, job, WEIGHTS + 2 * j, left, tile)
            for c in range(tile):
                sums[j, c] = 0
        for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_rows)):
            place = row * width + left
            load(room, 0, job, START, place, tile)
            load(room, 1, job, END, place, tile)
            for c in range(tile):
                room[1, c] -= room[0, c]
                room[4, c] = 0
                room[5, c] = 0
            for j in range(num_mixes):
                load(room, 3, job, WEIGHTS + 2 * (num_mixes + j), place, tile)
                if job[OFFSETS]:
                    load(room, 2, job, OFFSETS, j * num_rows * width + place, tile)
                for c in range(tile):
                    gradient = room[3, c]
                    share = gradient * (weights[j, c] + room[2, c])
                    room[5, c] += share
                    room[4, c] += gradient - share
                    room[3, c] = gradient * room[1, c]
                    sums[j, c] += room[3, c]
                if job[OFFSETS]:
                    store(job, TO_OFFSETS, j * num_rows * width + place, room, 3, tile)
            store(job, TO_START, place, room, 4, tile)
            store(job, TO_END, place, room, 5, tile)
        for j in range(num_mixes):
            store(job, TO_WEIGHTS, (block * num_mixes + j) * width + left, sums, j, tile)


def _run_forward(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, mixed: list[Tensor]
) -> None:
    num_rows, width = start.shape[:-1].numel(), start.shape[-1]
    tensors = [start, end, offsets, None, None, None, None, *weights, *mixed]
    _forward.run([num_rows, width, len(weights)], tensors, num_blocks(num_rows))


def _run_backward(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor], *results: Tensor
) -> None:
    num_rows, width = start.shape[:-1].numel(), start.shape[-1]
    tensors = [start, end, offsets, *results, *weights, *gradients]
    _backward.run([num_rows, width, len(weights)], tensors, num_blocks(num_rows))


lerps = operators.lerps("", _run_forward, _run_backward, num_blocks, KINDS)
