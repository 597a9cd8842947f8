"""`ops.lerps` on a CPU: all the mixtures of two inputs in one pass over them, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bits import array_at
from .blocks import BLOCK_ROWS, KINDS, TILE_WIDTH, BlockKernel, load, new_like, num_blocks, store

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


def lerps(start: Tensor, end: Tensor, weights: Sequence[Tensor], offsets: Tensor | None = None) -> list[Tensor]:
    """See `ops.lerps`."""
    mixed: list[Tensor] = _lerps(start, end, list(weights), offsets, _dtype(start))
    return mixed


def _dtype(start: Tensor) -> torch.dtype:
    """What the mixtures are wanted in: under autocast in the precision of the matrix products that they are for."""
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") in KINDS:
        return torch.get_autocast_dtype("cpu")
    return start.dtype


@torch.library.custom_op("receptance::lerps", mutates_args=())
def _lerps(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, dtype: torch.dtype
) -> list[Tensor]:
    mixed = [new_like(start, dtype) for _ in weights]
    num_rows, width = start.shape[:-1].numel(), start.shape[-1]
    tensors = [start, end, offsets, None, None, None, None, *weights, *mixed]
    _forward.run([num_rows, width, len(weights)], tensors, num_blocks(num_rows))
    return mixed


@_lerps.register_fake
def _(start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    return [new_like(start, dtype) for _ in weights]


@torch.library.custom_op("receptance::lerps_backward", mutates_args=())
def _lerps_backward(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_rows, width = start.shape[:-1].numel(), start.shape[-1]
    to_start, to_end, to_offsets = new_like(start), new_like(end), new_like(start if offsets is None else offsets)
    sums = start.new_empty(num_blocks(num_rows), len(weights), width, dtype=torch.float32)
    tensors = [start, end, offsets, to_start, to_end, to_offsets, sums, *weights, *gradients]
    _backward.run([num_rows, width, len(weights)], tensors, num_blocks(num_rows))
    return to_start, to_end, sums.sum(0), to_offsets


@_lerps_backward.register_fake
def _(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sums = start.new_empty(len(weights), start.shape[-1], dtype=torch.float32)
    return new_like(start), new_like(end), sums, new_like(start if offsets is None else offsets)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    start, end, weights, offsets, _ = inputs
    ctx.save_for_backward(start, end, offsets, *weights)


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    start, end, offsets, *weights = ctx.saved_tensors
    to_start, to_end, sums, to_offsets = _lerps_backward(start, end, weights, offsets, gradients)
    to_weights = [sums[j].view(weight.shape).to(weight.dtype) for j, weight in enumerate(weights)]
    return to_start, to_end, to_weights, None if offsets is None else to_offsets, None


_lerps.register_autograd(_differentiate, setup_context=_keep)
