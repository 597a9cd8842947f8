"""Cross entropy with L2Wrap over large vocabularies: logits are read once forward and once backward, as they are."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward", "forward"]

IGNORED = tl.constexpr(-100)


@triton.jit
def forward(logits, targets, losses, norms, tops, places, V, SIZE: tl.constexpr):
    """Of a row: its loss (0 where it does not count), log of the sum of exponentials, largest logit, its place."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    steps = tl.arange(0, SIZE)
    # Finite, so that no difference of two is NaN.
    top, total, place = tl.full((), -1e30, tl.float32), tl.zeros((), tl.float32), tl.zeros((), tl.int32)
    for start in range(0, V, SIZE):
        column = start + steps
        x = tl.load(logits + row * V + column, mask=column < V, other=float("-inf")).to(tl.float32)
        here = tl.max(x, 0)
        place = tl.where(here > top, start + tl.argmax(x, 0).to(tl.int32), place)
        higher = tl.maximum(top, here)
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher), 0)
        top = higher
    norm = top + tl.log(total)
    # A target that is none gives NaN, which no training takes for a loss.
    is_one = (target >= 0) & (target < V)
    wanted = tl.load(logits + row * V + target, mask=is_one, other=float("nan")).to(tl.float32)
    tl.store(losses + row, tl.where(target == IGNORED, 0.0, norm - wanted))
    tl.store(norms + row, norm)
    tl.store(tops + row, top)
    tl.store(places + row, place)


@triton.jit
def backward(logits, targets, norms, tops, places, gradient, to_logits, V, strength, SIZE: tl.constexpr):
    """From the gradient of the sum of losses, a single number."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    is_counted, scale = target != IGNORED, tl.load(gradient).to(tl.float32)
    norm, place, pull = tl.load(norms + row), tl.load(places + row), strength * tl.load(tops + row)
    steps = tl.arange(0, SIZE)
    for start in range(0, V, SIZE):
        column = start + steps
        x = tl.load(logits + row * V + column, mask=column < V, other=0.0).to(tl.float32)
        share = tl.exp(x - norm) - tl.where(column == target, 1.0, 0.0) + tl.where(column == place, pull, 0.0)
        tl.store(to_logits + row * V + column, tl.where(is_counted, scale * share, 0.0), mask=column < V)
