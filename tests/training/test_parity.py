"""Our training in float32 is the official one: loss for loss that of a plain loop over time in float64."""

from __future__ import annotations

import math

import pytest
import torch

from receptance import Config, build
from receptance.data import Tokens
from receptance.training import Batch, Batching, Compute, Optim, Schedule, Trainer, Training

from . import plain

START, END, WARMUP = 6e-4, 6e-5, 10
ROWS, LENGTH, VOCABULARY = 4, 32, 512


def text(length: int) -> torch.Tensor:
    """Numbers that can be learnt: each is one of four followers of the one before."""
    torch.manual_seed(1)
    followers = torch.randint(VOCABULARY, (VOCABULARY, 4))
    numbers = [0]
    for choice in torch.randint(4, (length - 1,)).tolist():
        numbers.append(int(followers[numbers[-1], choice]))
    return torch.tensor(numbers)


def losses(version: str, num_layers: int, dim: int, num_steps: int) -> list[tuple[float, float]]:
    """Loss of each step: ours, and the plain loop's."""
    torch.manual_seed(0)
    config = Config(version=version, vocab_size=VOCABULARY, num_layers=num_layers, dim=dim)
    model = build(config)
    other = plain.PlainTraining(
        {name: value.double() for name, value in model.state_dict().items()},
        version,
        64,
        weight_decay=0.1,
        betas=(0.9, 0.99),
        eps=1e-18,
    )
    recipe = Training(
        batch=Batching(rows=ROWS, length=LENGTH),
        optim=Optim(lr=START, weight_decay=0.1),
        schedule=Schedule(tokens=ROWS * LENGTH * num_steps, end=END / START, warmup_steps=WARMUP),
        compute=Compute(precision="float32"),
    )
    numbers = text(num_steps * 64 + LENGTH + 1)
    trainer = Trainer(model, Tokens.of([numbers.numpy()]), recipe)
    found = []
    for step in range(num_steps):
        tokens = torch.stack([numbers[(s := step * 64 + 16 * row) : s + LENGTH + 1] for row in range(ROWS)])
        rate = plain.cosine(step, num_steps, WARMUP, START, END)
        ours = trainer.train_step(Batch.of(tokens))
        assert ours.learning_rate == pytest.approx(rate, rel=1e-12)
        found.append((ours.loss, other.step(tokens, rate)))
    return found


def check(version: str, num_layers: int, dim: int, num_steps: int) -> list[tuple[float, float]]:
    """Losses that are equal within 1e-5, from the official start on, and fall."""
    found = losses(version, num_layers, dim, num_steps)
    # The official head gives every logit a variance of about a quarter: ln V and half of it.
    assert found[0][0] == pytest.approx(math.log(VOCABULARY) + 0.125, abs=0.05)
    for step, (ours, truth) in enumerate(found):
        assert ours == pytest.approx(truth, rel=1e-5), f"step {step}"
    assert found[-1][0] < found[0][0] - 0.01
    return found


@pytest.mark.parametrize("version", ["4", "7"])
def test_losses_are_those_of_a_plain_loop_in_float64(version: str) -> None:
    check(version, num_layers=2, dim=64, num_steps=15)
