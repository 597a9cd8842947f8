"""How long layers remember: against decays worked out by hand, and states against the model's."""

from __future__ import annotations

import math

import pytest
import torch

from receptance.errors import InputError
from receptance.interpret import decays, memory
from tests.models.cases import CONFIGS, noisy, small

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_decays_and_changes(name: str) -> None:
    model = noisy(CONFIGS[name])
    with torch.no_grad():
        _, before = model(torch.tensor([TOKENS[:4]]))
        _, want = model(torch.tensor([TOKENS[4:]]), before)
    found, after = decays(model, TOKENS[4:], before)
    for part, wanted in zip(after, want, strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-4)
    assert len(found) == 2 and all(len(log_w) == 7 and bool((log_w <= 0).all()) for log_w in found)
    layers = memory(model, TOKENS[4:], before)
    assert all(layer.change is not None and layer.change > 0 and layer.norm > 0 for layer in layers)
    assert all(0 < layer.half_life.p10 <= layer.half_life.p50 <= layer.half_life.p90 for layer in layers)
    assert [layer.change for layer in memory(model, TOKENS)] == [None, None]


def test_half_lives_by_hand() -> None:
    """RWKV-4's decays do not depend on the text."""
    model = small("4", torch.float32)
    with torch.no_grad():
        for block in model.blocks:
            block.att.time_decay.fill_(math.log(math.log(2) / 5))
    for layer in memory(model, TOKENS):
        assert layer.half_life.p10 == pytest.approx(5) and layer.half_life.p90 == pytest.approx(5)


def test_a_change_by_hand() -> None:
    model = noisy(CONFIGS["7"])
    with torch.no_grad():
        _, before = model(torch.tensor([TOKENS[:6]]))
        _, after = model(torch.tensor([TOKENS[6:]]), before)
    for layer, old, new in zip(memory(model, TOKENS[6:], before), before.wkv, after.wkv, strict=True):
        assert layer.change == pytest.approx(((new - old).norm() / old.norm()).item(), rel=1e-3)
        assert layer.norm == pytest.approx(new.norm().item(), rel=1e-3)


def test_nothing_to_read() -> None:
    with pytest.raises(InputError, match="nothing to read"):
        memory(noisy(CONFIGS["7"]), [])
