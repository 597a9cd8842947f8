"""Work on tensors of float32 and bfloat16 in blocks of rows, shared out among threads.

    @BlockKernel
    def double(address: int, size: int, block: int) -> None:
        job = array_at(address, (size,), np.int64)          # [num_rows, width], then two words for each tensor
        ...
        load(room, 0, job, 2, row * job[1], job[1])         # x, as float32 whatever its dtype

    double.run([num_rows, width], [x, out], num_blocks(num_rows))

A kernel is compiled once, for one signature: what it works on are addresses, with the kind of numbers that lie there.
The loop over the blocks calls it by its address (see `openmp`), so that no kernel is compiled again inside a loop.
Sums over rows are kept for each block and added in order: they do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bits import array_at, bfloat16, bits_of_bfloat16
from .jit import c_function, kernel
from .openmp import run_blocks
from .storage import BFLOAT16, FLOAT32

__all__ = ["BLOCK_ROWS", "KINDS", "TILE_WIDTH", "BlockKernel", "load", "num_blocks", "store"]

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
# Of a block 32 rows high, the sums over rows are a 32nd of what is read.
BLOCK_ROWS = 32
# Numbers of a row that are worked on at a time: some twenty vectors of this length fit in the first-level cache.
TILE_WIDTH = 512


class BlockKernel:
    """A function (address, size, block), compiled at its first call, and the loop over its blocks."""

    def __init__(self, function: Callable[[int, int, int], None]) -> None:
        self.function = function

    @cached_property
    def compiled(self) -> Any:
        """The function in C's calling convention."""
        return c_function(self.function, 3)

    def run(self, numbers: Sequence[int], tensors: Sequence[Tensor | None], blocks: int) -> None:
        """Call it for each block.  The job that it reads: `numbers`, then address and kind of each tensor (None: 0)."""
        whole = [None if x is None else x.contiguous() for x in tensors]
        words = list(numbers)
        for x in whole:
            words += (0, 0) if x is None else (x.data_ptr(), KINDS[x.dtype])
        job = np.array(words, np.int64)
        run_blocks(self.compiled.address, job.ctypes.data, job.size, blocks)


def num_blocks(num_rows: int) -> int:
    """How many blocks there are of so many rows."""
    return -(-num_rows // BLOCK_ROWS)


@kernel
def load(room: Any, i: int, job: Any, tensor: int, start: int, size: int) -> None:
    """room[i, :size] = the numbers from `start` on of the tensor that word `tensor` of the job is about."""
    if job[tensor + 1] == FLOAT32:
        numbers = array_at(job[tensor] + 4 * start, (size,), np.float32)
        for c in range(size):
            room[i, c] = numbers[c]
    else:
        bits = array_at(job[tensor] + 2 * start, (size,), np.uint16)
        for c in range(size):
            room[i, c] = bfloat16(bits[c])


@kernel
def store(job: Any, tensor: int, start: int, room: Any, i: int, size: int) -> None:
    """The numbers from `start` on of that tensor = room[i, :size], rounded to its dtype."""
    if job[tensor + 1] == FLOAT32:
        numbers = array_at(job[tensor] + 4 * start, (size,), np.float32)
        for c in range(size):
            numbers[c] = room[i, c]
    else:
        bits = array_at(job[tensor] + 2 * start, (size,), np.uint16)
        for c in range(size):
            bits[c] = bits_of_bfloat16(room[i, c])
