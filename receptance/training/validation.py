"""How well a model predicts a text that it has not learned from."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..data import Tokens
from .batches import Batch
from .learner import Learner
from .parallel import Ranks, inner


def bits(nats: float) -> float:
    """A loss in bits: per byte, where the tokens are bytes."""
    return nats / math.log(2)


def mean_loss(model: Any, text: Tokens, rows: int = 8, length: int = 256, limit: int | None = None) -> float:
    """Mean loss in nats over the first `limit` tokens of a text (all if None), read as `rows` streams.

    The state is carried from one piece of `length` tokens to the next, so every prediction but the first few has the
    whole stream before it as context.  Any model with `features(tokens, state)` and `head` will do.

    Raises DataError where the text is too short or has tokens that the model does not know.
    """
    text.check_vocabulary(model.head.out_features)
    ranks = Ranks(device=next(model.parameters()).device)
    return learner_loss(Learner(model), text, rows, length, limit, ranks)


@torch.no_grad()
def learner_loss(
    learner: torch.nn.Module, text: Tokens, rows: int, length: int, limit: int | None, ranks: Ranks
) -> float:
    """The same for a learner that several processes share: each reads its part of the rows."""
    own, model = ranks.own(rows), inner(learner).model
    was_training = model.training
    model.eval()
    total, count, state = torch.zeros(2, dtype=torch.float64), 0, None
    for tokens, targets in text.streams(rows, length, limit):
        batch = Batch(*(torch.from_numpy(part[own.start : own.stop]) for part in (tokens, targets))).to(ranks.device)
        loss, state = learner(batch, state, carries=True)
        count = batch.targets.numel()
        total += torch.tensor([loss.item() * count, count], dtype=torch.float64)
    model.train(was_training)
    nats, positions = ranks.total(total).tolist()
    return float(nats / positions)
