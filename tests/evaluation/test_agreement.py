"""Two models on one text: divergence, agreement and scores against a plain computation of all logits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from receptance import Config
from receptance.errors import DataError
from receptance.evaluation import compare, score
from receptance.tokenizers import ByteTokenizer
from tests.models.cases import noisy

TEXT = "What is foretold, and by whom? " * 20


@pytest.fixture(scope="module")
def models() -> list[torch.nn.Module]:
    config = Config(version="7", vocab_size=256, num_layers=2, dim=32, head_size=16)
    return [noisy(config, strength=strength) for strength in (0.1, 0.12)]


@pytest.mark.parametrize("piece", [7, 100, 5000])
def test_figures_are_those_of_all_logits_at_once(models: list, piece: int) -> None:
    found = compare(*models, ByteTokenizer(), [TEXT], piece=piece)
    tokens = torch.tensor([[0, *TEXT.encode()]])
    with torch.no_grad():
        p, q = (torch.log_softmax(model(tokens[:, :-1])[0][0].double(), -1) for model in models)
    assert math.isclose(found.divergence, float((p.exp() * (p - q)).sum(-1).mean()), rel_tol=1e-3)
    assert math.isclose(found.top_agreement, float((p.argmax(-1) == q.argmax(-1)).double().mean()), abs_tol=0.002)
    assert found.divergence > 0 and 0 < found.top_agreement < 1
    for model, side in zip(models, (found.before, found.after), strict=True):
        alone = score(model, ByteTokenizer(), [TEXT])
        assert math.isclose(side.nats, alone.nats, rel_tol=1e-5) and side.tokens == alone.tokens == len(TEXT)
        assert math.isclose(side.bits_per_byte, alone.bits_per_byte, rel_tol=1e-5)
    assert math.isclose(found.more_bits, found.after.nats / found.before.nats - 1)


def test_a_model_agrees_with_itself(models: list, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    seen = []
    found = compare(models[0], models[0], ByteTokenizer(), tmp_path / "text.txt", seen.append, piece=100)
    assert found.divergence == 0 and found.top_agreement == 1 and found.more_bits == 0
    assert [one.before.tokens for one in seen] == [100, 200, 300, 400, 500, 600, 620]


def test_an_empty_text_is_refused(models: list) -> None:
    with pytest.raises(DataError, match="nothing to compare"):
        compare(*models, ByteTokenizer(), [""])
