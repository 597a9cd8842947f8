"""What stands between matrix products and recurrences, in PyTorch's elementary functions.

The truth that the fused forms are tested against, right on any device and dtype, and what whoever follows a model's
computation sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

STRONGEST_DECAY = -math.exp(-0.5)  # the most that RWKV-7's log w can be below 0


def lerps(start: Tensor, end: Tensor, weights: Sequence[Tensor], offsets: Tensor | None = None) -> list[Tensor]:
    """start + (end - start) * weight, for each weight."""
    if offsets is None:
        return [torch.lerp(start, end, weight) for weight in weights]
    return [torch.lerp(start, end, weight + offsets[j]) for j, weight in enumerate(weights)]


def delta_inputs(
    w: Tensor,
    rate: Tensor,
    k: Tensor,
    v: Tensor,
    residual: tuple[Tensor, Tensor, Tensor] | None,
    w_0: Tensor,
    a_0: Tensor,
    k_k: Tensor,
    k_a: Tensor,
    head_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """RWKV-7's vectors as its recurrence wants them."""
    log_w = STRONGEST_DECAY * torch.sigmoid(w_0.type_as(w) + w)
    rate = torch.sigmoid(a_0 + rate)
    removed = F.normalize((k * k_k).unflatten(-1, (-1, head_size)), dim=-1).flatten(-2)
    if residual is not None:
        v_first, share, v_0 = residual
        v = (v + (v_first - v) * torch.sigmoid(v_0 + share)).type_as(v)
    written = k * (1 + (rate - 1) * k_a)
    return log_w, written.type_as(k), v, -removed.type_as(k), (removed * rate).type_as(k)


def read_out(
    y: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    bonus: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    bonus_first: bool = False,
) -> Tensor:
    """The heads' outputs normalised, with the bonus of the current token, gated: [B, T, H, N] -> [B, T, A]."""
    extra = (r * k * bonus).sum(-1, keepdim=True) * v
    if bonus_first:
        y = y + extra
    rows = F.group_norm(y.flatten(0, 1).flatten(1), bonus.shape[0], weight, bias, eps)
    out = rows.view(y.shape[0], y.shape[1], -1)
    if not bonus_first:
        out = out + extra.flatten(2)
    return (out if gate is None else out * gate).type_as(r)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2."""
    return torch.relu(x).square()


IGNORED = -100  # the target of a position that does not count


def cross_entropy(logits: Tensor, targets: Tensor, l2wrap: float = 0.0) -> Tensor:
    """Sum of the losses of R positions."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    if l2wrap:
        loss = _L2Wrap.apply(loss, logits, targets != IGNORED, l2wrap)  # type: ignore[no-untyped-call]
    return loss


class _L2Wrap(torch.autograd.Function):
    """The identity on a loss, which in the backward pass also pulls each row's largest logit towards 0.

    The pull is the gradient of strength / 2 * max(logits)^2, times the gradient that arrives at the loss: scaling or
    averaging the loss scales the pull with it (RWKV-LM, `src/model.py`, class L2Wrap).
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, logits: Tensor, counted: Tensor, strength: float) -> Tensor:
        """loss [], logits [R, V], counted [R] (bool: rows that have a target) -> the loss."""
        largest, place = logits.max(-1, keepdim=True)
        ctx.save_for_backward(largest * counted[:, None] * strength, place)
        ctx.shape = logits.shape
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        pull, place = ctx.saved_tensors
        return gradient, pull.new_zeros(ctx.shape).scatter_(-1, place, pull * gradient), None, None
