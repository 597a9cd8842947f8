"""How well a model predicts a text that it has not learned from."""

from __future__ import annotations

import math
from typing import Any

import torch

from .data import ByteText
from .loss import next_token_loss


def bits(nats: float) -> float:
    """A loss in bits: per byte, where the tokens are bytes."""
    return nats / math.log(2)


@torch.no_grad()
def mean_loss(model: Any, text: ByteText, rows: int = 8, length: int = 256, limit: int | None = None) -> float:
    """Mean loss in nats over the first `limit` bytes of a text (all if None), read as `rows` streams.

    The state is carried from one piece of `length` tokens to the next, so every prediction but the first few has the
    whole stream before it as context.  Any model with `features(tokens, state)` and `head` will do.

    Raises DataError where the text is too short or has bytes that are no tokens of the model.
    """
    text.check_vocabulary(model.head.out_features)
    device = next(model.parameters()).device
    total, count, state = 0.0, 0, None
    for tokens, targets in text.streams(rows, length, limit):
        x, state = model.features(tokens.to(device), state)
        total += next_token_loss(model.head, x, targets.to(device)).item() * targets.numel()
        count += targets.numel()
    return total / count
