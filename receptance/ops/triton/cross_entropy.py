"""Cross entropy with L2Wrap over large vocabularies: logits are read once forward and once backward, as they are."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward", "forward"]


@triton.jit
def forward(logits, targets, losses, norms, tops, places, V, SIZE: tl.constexpr):
    """Of a row: its loss (0 where the target is negative), log of the sum of exponentials, largest logit, its place."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    steps = tl.arange(0, SIZE)
    top, total, place = tl.full((), float("-inf"), tl.float32), tl.zeros((), tl.float32), tl.zeros((), tl.int32)
    for start in range(0, V, SIZE):
        column = start + steps
        x = tl.load(logits + row * V + column, mask=column < V, other=float("-inf")).to(tl.float32)
        here = tl.max(x, 0)
        place = tl.where(here > top, start + tl.argmax(x, 0).to(tl.int32), place)
        higher = tl.maximum(top, here)
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher), 0)
        top = higher
    norm = top + tl.log(total)
    is_counted = target >= 0
    wanted = tl.load(logits + row * V + tl.where(is_counted, target, 0)).to(tl.float32)
    tl.store(losses + row, tl.where(is_counted, norm - wanted, 0.0))
    tl.store(norms + row, norm)
    tl.store(tops + row, top)
    tl.store(places + row, place)


@triton.jit
def backward(logits, targets, norms, tops, places, gradient, to_logits, V, strength, SIZE: tl.constexpr):
    """From the gradient of the sum of losses, a single number."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    scale = tl.where(target >= 0, tl.load(gradient).to(tl.float32), 0.0)
    norm, place, pull = tl.load(norms + row), tl.load(places + row), strength * tl.load(tops + row)
    steps = tl.arange(0, SIZE)
    for start in range(0, V, SIZE):
        column = start + steps
        x = tl.load(logits + row * V + column, mask=column < V, other=0.0).to(tl.float32)
        share = tl.exp(x - norm) - tl.where(column == target, 1.0, 0.0) + tl.where(column == place, pull, 0.0)
        tl.store(to_logits + row * V + column, scale * share, mask=column < V)
