"""Every block is computed exactly once, by PyTorch's threads and by Numba's; numbers are kept as they are."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba")

import numpy as np

from receptance.ops.cpu import openmp
from receptance.ops.cpu.bits import array_at
from receptance.ops.cpu.blocks import BlockKernel, load, store

WIDTH = 5


@BlockKernel
def count_and_copy(address: int, size: int, block: int) -> None:
    """counts[block] += 1 and out[block] = x[block]; words: width, counts, x, out."""
    job, room = array_at(address, (size,), np.int64), np.empty((1, 8), np.float32)
    load(room, 0, job, 1, block, 1)
    room[0, 0] += np.float32(1)
    store(job, 1, block, room, 0, 1)
    load(room, 0, job, 3, block * job[0], job[0])
    store(job, 5, block * job[0], room, 0, job[0])


@pytest.mark.parametrize("threads_of", ["PyTorch", "Numba"])
@pytest.mark.parametrize("num_blocks", [0, 1, 2, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_block_is_computed_once(
    threads_of: str, num_blocks: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if threads_of == "Numba":
        monkeypatch.setattr(openmp, "_fork", lambda: None)
    elif openmp._fork() is None:
        pytest.skip("PyTorch has no GNU OpenMP here")
    x = torch.randn(num_blocks, WIDTH).to(dtype)
    counts, out = torch.zeros(num_blocks), torch.zeros_like(x)
    count_and_copy.run([WIDTH], [counts, x, out], num_blocks)
    assert (counts == 1).all()
    assert torch.equal(out, x)


def test_float32_is_rounded_to_the_nearest_bfloat16_as_pytorch_does() -> None:
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38, -0.0])
    x = torch.cat([ties, torch.randn(995), torch.tensor([torch.inf, -torch.inf, 1e-40, 1e-45, 3.4e38])]).view(-1, WIDTH)
    counts, out = torch.zeros(len(x)), torch.zeros_like(x, dtype=torch.bfloat16)
    count_and_copy.run([WIDTH], [counts, x, out], len(x))
    assert torch.equal(out, x.bfloat16())
