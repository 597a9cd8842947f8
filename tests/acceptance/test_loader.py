"""`make acceptance PART=loader`: batches are made at least 20 times faster than a training here consumes them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from receptance import build
from receptance.data import ORDERS, Tokens, documents, prepare
from receptance.quickstart import SMALL
from receptance.training import Batches, Batching, Schedule, Trainer, Training

WANTED = 20


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """On disk, as a training reads it."""
    path: Path = tmp_path_factory.mktemp("text") / "stdlib"
    prepare(documents("python:"), "bytes", path)
    return Tokens.open(path)


@pytest.fixture(scope="module")
def consumed(text: Tokens) -> float:
    """Tokens a second of the quickstart's model, the fastest that anybody trains here."""
    recipe = Training(batch=Batching(rows=8, length=128), schedule=Schedule(seconds=15))
    torch.manual_seed(0)
    return Trainer(build(SMALL), text, recipe).train().steps[-1].tokens_per_second


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_the_text_is_read_fast_enough(order: str, apart: bool, text: Tokens, consumed: float) -> None:
    batches = Batches(text, Batching(rows=8, length=128, order=order, apart=apart))
    start, made = time.perf_counter(), 0
    for step in range(2000):
        made += batches(step).num_tokens
    speed = made / (time.perf_counter() - start)
    print(f"\n{order}: {speed:,.0f} tokens/s, {speed / consumed:.0f} times what training consumes ({consumed:,.0f})")
    assert speed >= WANTED * consumed
