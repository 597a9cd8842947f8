"""Next-token loss from a model's features, without ever holding all logits.

    x, state = model.features(tokens)
    loss = next_token_loss(model.head, x, targets, l2wrap=1e-4)

With a vocabulary of 65,536 the logits of 8 rows of 4,096 tokens would take 8.6 GB in float32, and as much again for
their gradient.  Here they are made for a chunk of positions at a time, and made again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
MAX_LOGITS = 2**24


class L2Wrap(torch.autograd.Function):
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


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _summed(head: nn.Linear, x: Tensor, targets: Tensor, l2wrap: float) -> Tensor:
    """Sum of the losses of R positions: x [R, C], targets [R]."""
    logits = head(x)
    logits = logits.to(_loss_dtype(logits.dtype))
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    if l2wrap:
        loss = L2Wrap.apply(loss, logits, targets != IGNORED, l2wrap)  # type: ignore[no-untyped-call]
    return loss


def next_token_loss(
    head: nn.Linear,
    x: Tensor,
    targets: Tensor,
    l2wrap: float = 0.0,
    max_logits: int = MAX_LOGITS,
    num_targets: Tensor | int | None = None,
) -> Tensor:
    """Mean cross entropy in nats, in float32 (float64 in a float64 model).

    head      the layer that makes logits
    x         [B, T, C], what it reads
    targets   [B, T], the next tokens; positions with IGNORED (-100) do not count
    l2wrap    strength of L2Wrap: each counted position's largest logit gets the gradient l2wrap / positions * logit
              (official training: 1e-4)
    max_logits
              how many logits may exist at a time; more positions than that are taken in chunks
    num_targets
              what the sum is divided by, where these are a part of a step's positions; None: how many count here
    """
    x, targets = x.flatten(0, 1), targets.flatten()
    chunk = max(1, max_logits // head.out_features)
    total = x.new_zeros((), dtype=_loss_dtype(x.dtype))
    for part, wanted in zip(torch.split(x, chunk), torch.split(targets, chunk), strict=True):
        if len(x) <= chunk:
            total = total + _summed(head, part, wanted, l2wrap)
        else:
            total = total + checkpoint(_summed, head, part, wanted, l2wrap, use_reentrant=False)
    if num_targets is None:
        num_targets = (targets != IGNORED).sum().clamp(min=1)
    return total / num_targets
