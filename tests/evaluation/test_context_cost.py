"""The measurements of a token's cost read what they say they read."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
import torch

from receptance import RWKV, Config, runtime
from receptance.baselines import Transformer
from receptance.devices import memory_in_use
from receptance.evaluation import cost_of_rwkv, cost_of_transformer, step_seconds

CONFIG = Config(version="7", vocab_size=256, num_layers=1, dim=64)


class Counting(RWKV):
    """Remembers the size of every piece it is given, and the state it was given last for a single token."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.reset_parameters()
        self.sizes: list[int] = []
        self.states: list[Any] = []

    def features(self, tokens: torch.Tensor, state: Any = None, *options: Any) -> tuple[torch.Tensor, Any]:
        self.sizes.append(tokens.shape[1])
        self.states.append(state)
        return super().features(tokens, state, *options)


def test_the_text_is_read_once_in_pieces_and_repeated_where_it_ends() -> None:
    model = Counting()
    costs = list(cost_of_rwkv(model, torch.arange(70, dtype=torch.uint8), (100, 250), num_steps=4, piece=64))
    assert [cost.context for cost in costs] == [100, 250]
    decoding = [1] * (4 + 3)
    assert model.sizes == [64, 36, *decoding, 64, 64, 22, *decoding]
    assert {cost.state_bytes for cost in costs} == {model.zero_state(1).num_bytes}


def test_decoding_to_measure_it_does_not_move_the_context() -> None:
    """The second context starts from the state that reading left, not from the one that timing left."""
    model, text = Counting(), torch.randint(256, (300,), dtype=torch.uint8)
    list(cost_of_rwkv(model, text, (100, 200), num_steps=1, piece=50))
    first_step = [place for place, size in enumerate(model.sizes) if size == 1][4]
    timed = model.states[first_step]
    with torch.no_grad():
        _, expected = model(text[None, :200].long(), None)
    torch.testing.assert_close(timed.wkv, expected.wkv, atol=1e-5, rtol=1e-4)


def test_the_compiled_step_is_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, called = RWKV(CONFIG).eval(), []
    if runtime.refusal(model) is not None:
        pytest.skip("there is no compiled step here")
    monkeypatch.setattr(runtime.Step, "__call__", lambda self, *inputs: called.append(1) or torch.zeros(1, 256))
    list(cost_of_rwkv(model, torch.zeros(8, dtype=torch.uint8), (8,), num_steps=4))
    assert len(called) == 4 + 3


def test_a_transformers_memory_grows_with_the_context() -> None:
    model = Transformer(256, 2, 32, 4)
    costs = list(cost_of_transformer(model, (64, 640), num_steps=2))
    assert [cost.state_bytes for cost in costs] == [2 * 2 * 32 * 4 * 64, 2 * 2 * 32 * 4 * 640]
    assert all(cost.seconds > 0 for cost in costs)


def test_a_step_is_timed_by_the_median() -> None:
    waits = iter([0.0] * 3 + [0.0, 0.5, 0.0, 0.02, 0.02])

    def step(tokens: torch.Tensor) -> torch.Tensor:
        time.sleep(next(waits))
        return torch.zeros(1, 4)

    assert 0.01 < step_seconds(step, 5) < 0.3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory_sees_an_allocation() -> None:
    before = memory_in_use()
    held = torch.ones(50_000_000 // 4)
    after = memory_in_use()
    assert before is not None and after is not None
    assert 40e6 < after - before < 80e6
    del held
