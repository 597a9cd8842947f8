"""What one more token costs after a short and after a long context: time, and memory of the past.

for cost in cost_of_rwkv(model, text, contexts=(1_000, 10_000, 100_000)): ...
for cost in cost_of_transformer(Transformer.like(model), contexts=(1_000, 10_000, 100_000)): ...
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..baselines import KeyValues, Transformer
from ..generation import Called, stepper
from ..models import RWKV


class ContextCost(NamedTuple):
    """What one more token costs after `context` tokens: median seconds, and bytes of the model's state."""

    context: int
    seconds: float
    state_bytes: int


def step_seconds(step: Callable[[Tensor], Tensor], num_steps: int, device: torch.device | str = "cpu") -> float:
    """Median time of a `step` from tokens [1] to logits [1, V], over `num_steps` after a few to warm up."""
    taken = []
    token = torch.zeros(1, dtype=torch.long, device=device)
    for _ in range(num_steps + 3):
        start = time.perf_counter()
        # The next token comes from these logits, as in real decoding; reading it also waits for the device.
        token = step(token).argmax(-1)
        token.item()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[3:])


@torch.no_grad()
def cost_of_rwkv(
    model: RWKV, text: Tensor, contexts: Sequence[int], num_steps: int = 100, piece: int = 1024
) -> Iterator[ContextCost]:
    """Reads `text` [S] (again from its start when it ends) up to each context in turn, and times decoding there.

    The text is read in pieces, only the state goes from one to the next: memory does not grow with the context.
    """
    device, state, read = model.emb.weight.device, None, 0
    for context in sorted(contexts):
        while read < context:
            place = torch.arange(read, min(read + piece, context)) % len(text)
            _, state = model.features(text[place][None].long().to(device), state)
            read += len(place)
        assert state is not None
        yield ContextCost(context, step_seconds(stepper(model, state).step, num_steps, device), state.num_bytes)


@torch.no_grad()
def cost_of_transformer(model: Transformer, contexts: Sequence[int], num_steps: int = 30) -> Iterator[ContextCost]:
    """Times decoding with a cache of each size.

    The cache is filled with noise, not by reading a text: a step costs the same, and 100,000 tokens need not be read.
    """
    for context in sorted(contexts):
        state = KeyValues.random(model, rows=1, length=context, spare=num_steps + 3)
        step = Called(model, state).step
        yield ContextCost(context, step_seconds(step, num_steps, model.emb.weight.device), state.num_bytes)
        # Freed before the next, larger one is made.
        del state, step
