"""Next-token loss from a model's features, without ever holding all logits.

    x, state = model.features(tokens)
    loss = next_token_loss(model.head, x, targets, l2wrap=1e-4)

With a vocabulary of 65,536 the logits of 8 rows of 4,096 tokens would take 8.6 GB in float32, and as much again for
their gradient.  Here they are made for a chunk of positions at a time, and made again in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import IGNORED, cross_entropy, remembered

__all__ = ["IGNORED", "next_token_loss"]

MAX_LOGITS = 2**24


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _summed(head: nn.Linear, x: Tensor, targets: Tensor, l2wrap: float) -> Tensor:
    """Sum of the losses of R positions: x [R, C], targets [R]."""
    return cross_entropy(head(x), targets, l2wrap)


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
    l2wrap    strength of L2Wrap (`ops.cross_entropy`; official training: 1e-4)
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
            total = total + checkpoint(remembered(_summed), head, part, wanted, l2wrap, use_reentrant=False)
    if num_targets is None:
        num_targets = (targets != IGNORED).sum().clamp(min=1)
    return total / num_targets
