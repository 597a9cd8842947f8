"""`make acceptance PART=house`: the model of the package on every held-out file of the packages that are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import receptance
from receptance.data import HeldOut, Tokens, documents, prepare
from receptance.training import Recipe, bits, mean_loss


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    data = Recipe.read("house").data
    folder: Path = tmp_path_factory.mktemp("text")
    texts = (document for source in data.train for document in documents(source))
    prepare(texts, "bytes", folder / "train", held_out=HeldOut(folder / "held-out", data.held_out_one_in))
    return Tokens.open(folder / "held-out")


def test_its_bits_per_byte(held_out: Tokens) -> None:
    found = bits(mean_loss(receptance.load("house", dtype="float32").model, held_out))
    print(f"\n{found:.3f} bits per byte on {held_out.num_tokens:,} bytes of {held_out.num_documents} held-out files")
    assert found < 1.4
