"""Random inputs of the ops, as hard as they come: odd sizes, boundaries next to each other, decays of any strength."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from receptance.ops.reference import EMPTY_MAX

# The strongest decay that RWKV-7 can have: log w = -e^{-1/2}.
BOUND_7 = 0.6065306597


def boundaries(rows: int, length: int) -> Tensor:
    """Document boundaries: at position 0, side by side, several in a chunk, and rows with none."""
    first = torch.rand(rows, length) < 0.15
    first[0, 0] = True
    first[1] = False
    first[-1, 31:34] = True
    return first


def make(
    op: str, rows: int, length: int, dtype: torch.dtype = torch.float64, heads: int = 2, size: int = 8
) -> list[Tensor]:
    """All tensors that `op` takes, the state last; row 1 of wkv4 starts from the empty state."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    shape = (rows, length, heads, size)
    if op == "wkv4":
        A = heads * size
        state = torch.stack([normal(rows, A), normal(rows, A).exp(), normal(rows, A)], 1)
        state[1:2, :2], state[1:2, 2] = 0, EMPTY_MAX
        log_w, k, v = (normal(rows, length, A) for _ in range(3))
        inputs = [-torch.exp(2 * log_w - 1), normal(A), 2 * k, v, state]
    elif op == "wkv6":
        inputs = [normal(*shape), -torch.exp(2.5 * normal(*shape)), normal(*shape), normal(*shape)]
        inputs.append(normal(rows, heads, size, size))
    else:
        kk = F.normalize(normal(*shape), dim=-1)
        rate = torch.rand(*shape, dtype=torch.float64)
        log_w = -BOUND_7 * torch.rand(*shape, dtype=torch.float64)
        inputs = [normal(*shape), log_w, normal(*shape), normal(*shape), -kk, kk * rate]
        inputs.append(normal(rows, heads, size, size))
    return [x.to(dtype) for x in inputs]


def relative(value: Tensor, truth: Tensor) -> float:
    """Largest difference as a share of the largest true entry; infinite where any number is not finite."""
    if not (torch.isfinite(value).all() and torch.isfinite(truth).all()):
        return float("inf")
    return ((value - truth).abs().max() / truth.abs().max().clamp_min(1e-30)).item()
