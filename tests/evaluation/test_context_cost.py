"""The measurements of a token's cost read what they say they read."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from receptance.baselines import LSTM, Transformer
from receptance.evaluation import cost_of_rwkv, cost_of_transformer, resident_bytes, step_seconds


class Counting(LSTM):
    """Remembers the size of every piece it is given."""

    def __init__(self) -> None:
        super().__init__(256, 1, 8)
        self.sizes: list[int] = []

    def features(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        self.sizes.append(tokens.shape[1])
        self.last, result = tokens, super().features(tokens, state)
        return result


def test_the_text_is_read_once_in_pieces_and_repeated_where_it_ends() -> None:
    model = Counting()
    costs = list(cost_of_rwkv(model, torch.arange(70, dtype=torch.uint8), (100, 250), num_steps=4, piece=64))
    assert [cost.context for cost in costs] == [100, 250]
    decoding = [1] * (4 + 3)
    assert model.sizes == [64, 36, *decoding, 64, 64, 22, *decoding]
    assert {cost.state_bytes for cost in costs} == {2 * 8 * 4}


def test_decoding_to_measure_it_does_not_move_the_context() -> None:
    """The second context starts from the state that reading left, not from the one that timing left."""
    model, text = Counting(), torch.randint(256, (300,), dtype=torch.uint8)
    states = []
    model.register_forward_pre_hook(lambda module, inputs: states.append(inputs[1]))
    list(cost_of_rwkv(model, text, (100, 200), num_steps=1, piece=50))
    with torch.no_grad():
        _, expected = model(text[None, :200].long(), None)
    assert torch.allclose(states[4].hidden, expected.hidden, atol=1e-6)


def test_a_transformers_memory_grows_with_the_context() -> None:
    model = Transformer(256, 2, 32, 4)
    costs = list(cost_of_transformer(model, (64, 640), num_steps=2))
    assert [cost.state_bytes for cost in costs] == [2 * 2 * 32 * 4 * 64, 2 * 2 * 32 * 4 * 640]
    assert all(cost.seconds > 0 for cost in costs)


def test_a_step_is_timed_by_the_median() -> None:
    with torch.no_grad():
        assert 0 < step_seconds(Counting(), None, 5) < 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory_sees_an_allocation() -> None:
    before = resident_bytes()
    held = torch.ones(50_000_000 // 4)
    after = resident_bytes()
    assert before is not None and after is not None
    assert 40e6 < after - before < 80e6
    del held
