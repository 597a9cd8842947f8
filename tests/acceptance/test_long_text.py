"""`make acceptance PART=long_text`: a text of 1,000,000 tokens is learnt from in memory that does not grow with it."""

from __future__ import annotations

import numpy as np
import torch

from receptance import Config, build
from receptance.data import Tokens
from receptance.training import Batching, Compute, Optim, Schedule, Step, Trainer, Training

NUM_TOKENS, LENGTH = 1_000_000, 1_000


def test_memory_does_not_grow_with_the_text() -> None:
    text = Tokens.of([np.random.default_rng(0).integers(1, 256, NUM_TOKENS, np.uint8)])
    recipe = Training(
        batch=Batching(rows=1, length=LENGTH, order="in-order"),
        optim=Optim(lr=1e-4),
        schedule=Schedule(steps=NUM_TOKENS // LENGTH - 1),
        compute=Compute(precision="float32"),
    )
    torch.manual_seed(0)
    model = build(Config(version="7", vocab_size=256, num_layers=4, dim=128))
    seen: list[Step] = []
    trainer = Trainer(model, text, recipe, seen.append)
    trainer.train()
    # By tenths of the text: the largest in each.
    tenths = [max(step.memory for step in seen[start : start + 100]) / 1e6 for start in range(0, len(seen), 100)]
    print("\nmegabytes, by tenths of the text:", ", ".join(f"{size:.0f}" for size in tenths))
    assert trainer.state is not None and seen[-1].tokens == NUM_TOKENS - LENGTH
    assert max(tenths[1:]) - min(tenths[1:]) < 0.02 * max(tenths)
