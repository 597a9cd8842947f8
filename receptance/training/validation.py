"""How well a model predicts a text that it has not learned from."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from ..data import Tokens
from ..state import State
from .batches import Batch, Batches, in_parts
from .learner import Learner
from .parallel import Ranks, inner
from .recipe import Batching


def bits(nats: float) -> float:
    """A loss in bits: per byte, where the tokens are bytes."""
    return nats / math.log(2)


@torch.no_grad()
def mean_loss(model: Any, text: Tokens, rows: int = 8, length: int = 256, limit: int | None = None) -> float:
    """Mean loss in nats over the first `limit` tokens of a text (all if None), read as `rows` streams.

    The state is carried from one piece of `length` tokens to the next, so every prediction but the first few has the
    whole stream before it as context.  Any model with `features(tokens, state)` and `head` will do.

    Raises DataError where the text is too short or has tokens that the model does not know.
    """
    text.check_vocabulary(model.head.out_features)
    device = next(model.parameters()).device
    learner, total, count, state = Learner(model), 0.0, 0, None
    for tokens, targets in text.streams(rows, length, limit):
        batch = Batch(torch.from_numpy(tokens), torch.from_numpy(targets)).to(device)
        loss, state = learner(batch, state, carries=True)
        total += loss.item() * batch.targets.numel()
        count += batch.targets.numel()
    return total / count


class Measuring:
    """What a training is measured on: the text once, in the form in which the training reads.

    Documents are read as documents, everything else in order with the state carried on; states begin anew where the
    training's do, and what is not learnt there is not counted here.

    text       what is held out
    batching   of the training
    limit      on how many tokens is measured; 0: all

    Raises DataError where the text is too short.
    """

    def __init__(self, text: Tokens, batching: Batching, limit: int, ranks: Ranks) -> None:
        self.ranks = ranks
        tokens = min(text.num_tokens, limit or text.num_tokens)
        order = "documents" if batching.order == "documents" else "in-order"
        # As many rows as a step has, of which each has a window to read at least; every process has as many.
        windows = text.num_documents if order == "documents" else max(1, (tokens - 1) // batching.length)
        rows = max(1, min(batching.rows, windows) // ranks.count) * ranks.count
        at_once = min(batching.rows_at_once, rows // ranks.count)
        at_once = at_once if at_once and rows % at_once == 0 else 0
        chosen = {**batching.model_dump(), "rows": rows, "rows_at_once": at_once, "order": order}
        self.batches = Batches(text, Batching(**chosen))
        share = tokens / text.num_tokens
        self.num_steps = max(1, int(self.batches.order.num_windows * share) // rows)

    @torch.no_grad()
    def loss(self, learner: torch.nn.Module, products: Callable[[], AbstractContextManager[Any]]) -> float:
        """The mean loss of a learner that the processes share, in nats a token."""
        model, batching = inner(learner).model, self.batches.batching
        was_training, state = model.training, None
        model.eval()
        own, total = self.ranks.own(batching.rows), torch.zeros(2, dtype=torch.float64)
        for step in range(self.num_steps):
            batch = self.batches(step, own).to(self.ranks.device)
            after = []
            for part, before in in_parts(batch, batching.rows_at_once, state):
                with products():
                    loss, rest = learner(part, before, 1, self.batches.carries)
                after.append(rest)
                total += torch.tensor([loss.item(), part.num_targets], dtype=torch.float64)
            # The baselines are measured window by window: the Transformer's memory would grow all along.
            state = State.stack(after) if isinstance(after[0], State) else None
        model.train(was_training)
        nats, count = self.ranks.total(total).tolist()
        return float(nats / max(1, count))
