"""`make acceptance PART=quality`: what int8 and int4 cost a trained model on text that it has not seen.

Takes the quickstart's model, and trains it first where there is none; QUALITY_MODEL names another byte-level one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import receptance
from receptance.evaluation import compare
from receptance.models.layers import Part
from receptance.quant import quantize
from receptance.quickstart import quickstart, read_corpus
from tests.conftest import ROOT

# The least agreement on the likeliest token, and by which share the bits per byte may rise.
BOUNDS = {"int8": (0.993, 0.0005), "int4": (0.96, 0.006)}
NUM_BYTES = 60_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = Path(os.environ.get("QUALITY_MODEL", ROOT / "quickstart" / "model.pth"))
    if named.exists():
        return named
    return quickstart(tmp_path_factory.mktemp("quickstart")).model_path


@pytest.fixture(scope="module")
def text() -> str:
    """The beginning of the files that the quickstart does not learn from."""
    held_out = read_corpus(Console(quiet=True)).held_out.window(0, NUM_BYTES)
    return bytes(held_out.tolist()).decode("utf-8", "ignore")


@pytest.mark.parametrize("to", BOUNDS)
def test_a_trained_model_foretells_the_same(to: str, path: Path, text: str) -> None:
    original, other = (receptance.load(path, dtype="float32", tokenizer="bytes") for _ in range(2))
    quantize(other.model, to)
    found = compare(original.model, other.model, original.known_tokenizer(), [text])
    print(
        f"\n{to}: the same likeliest token {found.top_agreement:.2%}, divergence {found.divergence:.5f} nats, "
        f"bits per byte {found.before.bits_per_byte:.4f} to {found.after.bits_per_byte:.4f} ({found.more_bits:+.3%})"
    )
    agreement, more = BOUNDS[to]
    assert found.top_agreement >= agreement and found.more_bits <= more


def test_most_inputs_of_the_channel_mix_are_exactly_zero(path: Path, text: str) -> None:
    model = receptance.load(path, dtype="float32", tokenizer="bytes").model
    shares: list[float] = []

    def count(_: nn.Module, inputs: tuple[Tensor]) -> None:
        shares.append(float((inputs[0] == 0).double().mean()))

    for part in model.modules():
        if isinstance(part, Part):
            for name in part.sparse_inputs:
                getattr(part, name).register_forward_pre_hook(count)
    with torch.no_grad():
        model(torch.tensor([list(text.encode()[:4000])]))
    print("\nexact zeros after the squared ReLU, layer by layer:", *(f"{share:.1%}" for share in shares))
    assert len(shares) == model.config.num_layers and min(shares) > 0.5
