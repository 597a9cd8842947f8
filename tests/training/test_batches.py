"""What a step reads: the right tokens and targets, by any number of processes; and texts of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from receptance import Config, build
from receptance.data import ORDERS, Tokens
from receptance.training import Batch, Batches, Batching, next_token_loss
from receptance.training.loss import IGNORED

from .test_trainer import TEXT, recipe, small_rwkv

DOCUMENTS = [[3, 4, 5, 6, 0], [7, 8, 0], [9, 10, 11, 12, 13, 14, 15, 0], [2, 0]] * 20
TALKS = Tokens.of(DOCUMENTS)


@pytest.mark.parametrize("order", ORDERS)
def test_targets_are_the_tokens_that_follow(order: str) -> None:
    batches = Batches(TALKS, Batching(rows=4, length=7, order=order))
    text = TALKS.window(0, TALKS.num_tokens)
    for step in range(6):
        batch = batches(step)
        for row in range(4):
            start, size = batches.order(4 * step + row)
            assert batch.tokens[row, : size - 1].tolist() == text[start : start + size - 1].tolist()
            assert batch.targets[row, : size - 1].tolist() == text[start + 1 : start + size].tolist()
            assert (batch.targets[row, size - 1 :] == IGNORED).all()
            if batch.lengths is not None:
                assert batch.lengths[row] == size - 1
        assert (batch.lengths is not None) == (order == "documents")


@pytest.mark.parametrize("order", ORDERS)
def test_processes_read_together_what_one_would_read(order: str) -> None:
    batches = Batches(TALKS, Batching(rows=6, length=7, order=order, apart=True, seed=3))
    for step in (0, 5):
        whole = batches(step)
        parts = [batches(step, range(start, start + 2)) for start in (0, 2, 4)]
        for row in range(6):
            part, place = parts[row // 2], row % 2
            size = part.tokens.shape[1]
            assert torch.equal(part.tokens[place], whole.tokens[row, :size])
            assert torch.equal(part.targets[place], whole.targets[row, :size])
            assert part.first is not None and whole.first is not None
            assert torch.equal(part.first[place], whole.first[row, :size])


def test_documents_apart_begin_with_the_token_that_ends_the_one_before() -> None:
    batch = Batches(TALKS, Batching(rows=4, length=9, order="packed", apart=True))(1)
    assert batch.first is not None
    # A document's end is always 0 here, and 0 is nothing else.
    assert torch.equal(batch.first, batch.tokens == 0)


def test_tokens_that_are_not_to_be_learnt_are_no_targets(tmp_path: Any) -> None:
    from receptance.data import BinidxWriter

    with BinidxWriter(tmp_path / "x", np.uint16) as writer:
        writer.add([1, 2, 3, 4, 0], np.array([False, False, True, True, True]))
    batch = Batches(Tokens.open(tmp_path / "x"), Batching(rows=1, length=4, order="packed"))(0)
    assert batch.tokens.tolist() == [[1, 2, 3, 4]] and batch.targets.tolist() == [[IGNORED, 3, 4, 0]]
    assert batch.num_targets == 3 and batch.num_tokens == 4


def test_a_batch_is_cut_into_rows() -> None:
    batch = Batches(TALKS, Batching(rows=4, length=9, order="documents", apart=True))(0)
    parts = batch.cut(2)
    assert len(parts) == 2
    for name, whole in batch._asdict().items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), whole)
    assert [part.lengths for part in Batch.of(torch.zeros(4, 3, dtype=torch.long)).cut(3)] == [None, None]


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_gradients_of_segments_with_a_carried_state_are_those_of_the_whole(version: str) -> None:
    """Without cutting the graph between them; `first` resets inside."""
    torch.manual_seed(0)
    model = build(Config(version=version, vocab_size=16, num_layers=2, dim=32, head_size=16)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    tokens = torch.randint(16, (2, 65))
    first = torch.rand(2, 64) < 0.03

    def gradient(cuts: list[int]) -> list[torch.Tensor]:
        model.zero_grad()
        state, total = None, torch.zeros((), dtype=torch.float64)
        for a, b in zip([0, *cuts], [*cuts, 64], strict=True):
            x, state = model.features(tokens[:, a:b], state, first=first[:, a:b])
            total = total + next_token_loss(model.head, x, tokens[:, a + 1 : b + 1], 1e-4, num_targets=128)
        total.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    for whole, parts in zip(gradient([]), gradient([16, 33, 50]), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)


def test_the_state_goes_on_from_step_to_step_and_is_cut() -> None:
    from receptance.training import Trainer

    plan = recipe(order="in-order", rows=2, rows_at_once=1, tokens=10**6)
    trainer = Trainer(small_rwkv(), TEXT, plan)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    trainer.optimizer.step = lambda: None  # type: ignore[method-assign]
    for step in range(3):
        trainer.train_step(trainer.batches(step))
    assert trainer.state is not None and not trainer.state.wkv.requires_grad
    tokens = torch.cat([trainer.batches(step).tokens for step in range(3)], 1)
    _, state = trainer.model.features(tokens)
    torch.testing.assert_close(trainer.state.wkv, state.wkv, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trainer.state.shift, state.shift, rtol=1e-4, atol=1e-5)
    # At the end of the texts they begin anew.
    trainer.position.steps = trainer.batches.order.num_windows // 2
    trainer.train_step(trainer.batches(0))
    _, state = trainer.model.features(trainer.batches(0).tokens)
    torch.testing.assert_close(trainer.state.wkv, state.wkv, rtol=1e-4, atol=1e-5)
