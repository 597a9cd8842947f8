"""A text may arrive in pieces, and so may ids: the result is that of the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receptance.errors import InputError
from receptance.tokenizers import PileTokenizer, StopFinder, Tokenizer, WorldTokenizer
from receptance.tokenizers.tokenizer import BLOCK

from . import properties

LINE = "It is 3 o'clock;  the \t clock's hand moves on. 時計の針は、進む。\n\n"


def test_pieces_give_the_whole(tokenizer: Tokenizer) -> None:
    properties.pieces_give_the_whole(tokenizer)


def test_a_long_text_is_not_held(tokenizer: Tokenizer) -> None:
    text = LINE * (4 * BLOCK // len(LINE))
    read = 0

    def pieces() -> Iterator[str]:
        nonlocal read
        for start in range(0, len(text), 999):
            piece = text[start : start + 999]
            read += len(piece)
            yield piece

    found: list[int] = []
    done = 0
    for ids in tokenizer.encode_pieces(pieces()):
        assert read - done < BLOCK + 1500
        done += len(tokenizer.decode(ids))
        found += ids
    assert found == tokenizer.encode(text)


def test_a_text_without_a_place_to_cut(small_pile: PileTokenizer) -> None:
    text = "x" * (3 * BLOCK)
    found = list(small_pile.encode_pieces(text[start : start + 1000] for start in range(0, len(text), 1000)))
    assert found == [small_pile.encode(text)]


def test_chinese_has_places_to_cut(small_pile: PileTokenizer) -> None:
    ids, rest = small_pile._settled("今天是美好的一天。今天是\uff0c美好的")
    assert rest == "美好的"
    assert small_pile.decode(ids) == "今天是美好的一天。今天是\uff0c"


def test_no_pieces(tokenizer: Tokenizer) -> None:
    assert list(tokenizer.encode_pieces([])) == []
    assert list(tokenizer.encode_pieces(["", ""])) == []


def test_stream_gives_the_whole(tokenizer: Tokenizer) -> None:
    properties.stream_gives_the_whole(tokenizer)


def test_half_a_character_waits(world: WorldTokenizer) -> None:
    decoder = world.stream()
    first, second, third = "檁".encode()
    assert [decoder.push(byte + 1) for byte in (first, second, third, first)] == ["", "", "檁", ""]
    assert decoder.finish() == "\ufffd"


def test_stops_are_found() -> None:
    properties.stops_are_found()


def test_a_stop_within_a_token(world: WorldTokenizer) -> None:
    """ "。\\n\\n" ends in the token of "\\n", so that a stop at the token of "\\n\\n" would be missed."""
    ids = world.encode("好。\n\nUser")
    assert 261 not in ids
    decoder, finder = world.stream(), StopFinder(["\n\n"])
    assert "".join(finder.push(decoder.push(token)) for token in ids) == "好。"
    assert finder.found == "\n\n"
    assert finder.finish() == ""


@pytest.mark.parametrize(
    ("stops", "text", "released", "found"),
    [
        (["\nUser:", "User:"], "Hi\nUser: you", "Hi", "\nUser:"),
        (["\n", "\n\n"], "Hi\n\n", "Hi", "\n"),
        (["abcd", "bc"], "abcd", "a", "bc"),
        (["aab"], "aaab", "a", "aab"),
        ("✿", "Hi✿\n", "Hi", "✿"),
        ([], "Hi", "Hi", None),
    ],
)
def test_the_first_complete_stop_wins(stops: list[str], text: str, released: str, found: str | None) -> None:
    whole, single = StopFinder(stops), StopFinder(stops)
    assert whole.push(text) == released
    assert "".join(map(single.push, text)) == released
    assert whole.found == single.found == found


def test_what_is_held_back_comes_at_the_end() -> None:
    finder = StopFinder(["\n\nUser:"])
    assert finder.push("Hi\n\nUs") == "Hi"
    assert finder.finish() == "\n\nUs"
    assert finder.finish() == ""


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        StopFinder(["a", ""])
