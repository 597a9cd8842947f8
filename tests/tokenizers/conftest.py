"""The tokenizers that every test of this folder is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from receptance.tokenizers import ByteTokenizer, PileTokenizer, Tokenizer, WorldTokenizer

from .small_pile import write


@pytest.fixture(scope="session")
def world() -> WorldTokenizer:
    return WorldTokenizer()


@pytest.fixture(scope="session")
def pile(fixtures: Path) -> PileTokenizer:
    """The Pile models' own tokenizer."""
    return PileTokenizer(fixtures / "tokenizer" / "20B_tokenizer.json")


@pytest.fixture(scope="session")
def small_pile(tmp_path_factory: pytest.TempPathFactory) -> PileTokenizer:
    return PileTokenizer(write(tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"))


@pytest.fixture(scope="session", params=["world", "bytes", "small_pile", "pile"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bytes":
        return ByteTokenizer()
    found: Tokenizer = request.getfixturevalue(request.param)
    return found
