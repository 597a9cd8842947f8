"""Text and bytes come back; nothing that a user can give ends in anything but an answer or a sentence."""

from __future__ import annotations

import sys

import pytest

from receptance.errors import InputError
from receptance.tokenizers import ByteTokenizer, PileTokenizer, Tokenizer, WorldTokenizer, world

from . import properties


def test_text_comes_back(tokenizer: Tokenizer) -> None:
    properties.text_comes_back(tokenizer)


@pytest.mark.parametrize("name", ["world", "bytes"])
def test_bytes_come_back(name: str, world: WorldTokenizer) -> None:
    properties.bytes_come_back(world if name == "world" else ByteTokenizer())


def test_both_encoders_of_world_agree(world: WorldTokenizer) -> None:
    properties.encoders_agree(world)


def test_world_without_the_compiled_encoder(world: WorldTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Hello world 你好 \n\n 42"
    expected = world.encode(text)
    monkeypatch.setattr("receptance.tokenizers.world._compiled", lambda: None)
    assert world.encode(text) == expected


def test_the_compiled_encoder_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrwkv_tokenizer", None)
    assert world._compiled.__wrapped__() is None


def test_every_token_of_world_is_itself(world: WorldTokenizer) -> None:
    for token in range(1, 65530):
        assert world.encode_bytes(world.token_bytes(token)) == [token]


@pytest.mark.parametrize("name", ["small_pile", "pile"])
def test_pile_decodes_as_its_library_does(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: PileTokenizer = request.getfixturevalue(name)
    for token in range(2, tokenizer.vocab_size):
        assert tokenizer.decode([token]) == tokenizer._encoder.decode([token])


def test_pile_composes_characters(small_pile: PileTokenizer) -> None:
    assert small_pile.encode("e\u0301") == small_pile.encode("é")
    assert small_pile.decode(small_pile.encode("e\u0301")) == "é"


def test_what_stands_for_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text == 0
    assert tokenizer.token_bytes(0) == b""
    for token in (tokenizer.vocab_size, 65530, 65535, 10**6, 2**70):
        if tokenizer.name == "world" or token >= tokenizer.vocab_size:
            assert tokenizer.token_bytes(token) == b""
    letter = tokenizer.encode("a")
    assert tokenizer.decode([0, *letter, 2**40, 0, *letter]) == "aa"
    with pytest.raises(InputError, match="-1 is no token"):
        tokenizer.decode([-1])


def test_marks_of_the_end_in_a_text(world: WorldTokenizer, small_pile: PileTokenizer) -> None:
    assert ByteTokenizer().encode("a\x00b") == [97, 0, 98]
    assert small_pile.encode("<|endoftext|>") == [0]
    assert 0 not in world.encode("\x00<|endoftext|><|rwkv_tokenizer_end_of_text|>")


def test_half_a_pair_is_one_sentence(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"character 3 of the text is U\+D83D, half of a surrogate pair"):
        tokenizer.encode("é \ud83d!")
    with pytest.raises(InputError, match=r"character 5 of the text is U\+DE00"):
        list(tokenizer.encode_pieces(["ab", "cd", "\ude00"]))


@pytest.mark.parametrize("call", ["encode", "decode"])
def test_nothing_but_our_errors_escapes(call: str, tokenizer: Tokenizer) -> None:
    properties.answers_or_refuses[call](getattr(tokenizer, call))
