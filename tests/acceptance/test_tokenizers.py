"""`make acceptance PART=tokenizers`: the properties of the tokenizers over 10,000 examples each."""

from __future__ import annotations

import pytest

from receptance.tokenizers import ByteTokenizer, Tokenizer, WorldTokenizer
from tests.tokenizers import properties
from tests.tokenizers.conftest import pile, small_pile, tokenizer, world
from tests.tokenizers.properties import MANY

__all__ = ["pile", "small_pile", "tokenizer", "world"]


def test_text_comes_back(tokenizer: Tokenizer) -> None:
    properties.text_comes_back(tokenizer, examples=MANY)


@pytest.mark.parametrize("name", ["world", "bytes"])
def test_bytes_come_back(name: str, world: WorldTokenizer) -> None:
    properties.bytes_come_back(world if name == "world" else ByteTokenizer(), examples=MANY)


def test_both_encoders_of_world_agree(world: WorldTokenizer) -> None:
    properties.encoders_agree(world, examples=MANY)


def test_pieces_give_the_whole(tokenizer: Tokenizer) -> None:
    properties.pieces_give_the_whole(tokenizer, examples=MANY)


def test_stream_gives_the_whole(tokenizer: Tokenizer) -> None:
    properties.stream_gives_the_whole(tokenizer, examples=MANY)


def test_stops_are_found() -> None:
    properties.stops_are_found(examples=MANY)


@pytest.mark.parametrize("call", ["encode", "decode"])
def test_nothing_but_our_errors_escapes(call: str, tokenizer: Tokenizer) -> None:
    properties.answers_or_refuses[call](getattr(tokenizer, call), examples=MANY)
