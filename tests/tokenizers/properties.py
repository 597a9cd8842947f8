"""What must hold for every text and every list of bytes or ids.

Each property is called with a tokenizer and looks for a counterexample itself, among a FEW examples or among MANY, as
tests/acceptance/test_tokenizers.py does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from unittest import mock

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from receptance.errors import InputError
from receptance.tokenizers import ByteTokenizer, StopFinder, Tokenizer, WorldTokenizer

# What makes trouble at a cut: runs of spaces, parts of special tokens, marks that compose with the letter before them,
# contractions, letters of three and four bytes, what Python and what Unicode call white space.
FRAGMENTS = (
    *(" ", "  ", " " * 7, " " * 30, "\n", "\n\n", "\r\n", "\t", "\x1c", "\x85", "\xa0", "\u3000", "\u200b", "\u0301"),
    *("e", "é", "e\u0301", "a", "ab", "abab", "the", " the", "'s", "'", "'ll", "1", "123456", "!", "…", "\u0338", "<"),
    *(
        "<|endoftext|>",
        "<|endo",
        "ftext|>",
        "<|padding|>",
        "|",
        "你好",
        "。",
        "、",
        "は",
        "か\u3099",
        "\u1100\u1161",
        "🙂",
    ),
    *("\u1100", "\u1161", "👩\u200d👩", "\x00", "\ufffd", "日本語", "\uff0c", "\uff1f", "User:", "x" * 150, "=" * 70),
)
# U+0000 is the end of a text to the tokenizer of bytes, and does not come back.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
awkward_texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=30).map("".join)

# So many as the tests have time for, the same ones every time; and ten thousand, others every time.
FEW = settings(max_examples=150, deadline=None, derandomize=True, database=None)
MANY = settings(max_examples=10_000, deadline=None, database=None)


def holds_for(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a property of a function: whoever calls it gives the first arguments, and the search for the others."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        def search(*given_ones: Any, examples: settings = FEW) -> None:
            examples(given(**strategies)(test))(*given_ones)

        return search

    return decorate


@holds_for(text=texts)
def text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    # Hypothesis takes words out of the source too, and these are the Pile's marks of an end.
    assume(tokenizer.name != "pile" or not re.search(r"<\|(endoftext|padding)\|>", text))
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text not in ids
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert tokenizer.decode(ids) == (NFC().normalize_str(text) if tokenizer.name == "pile" else text)


@holds_for(data=st.binary(max_size=200))
def bytes_come_back(tokenizer: WorldTokenizer | ByteTokenizer, data: bytes) -> None:
    # To the tokenizer of bytes, 0 is the end of a document.
    data = data.replace(b"\x00", b"") if tokenizer.name == "bytes" else data
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@holds_for(text=awkward_texts)
def encoders_agree(tokenizer: WorldTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == tokenizer.encode_bytes(text.encode())


@holds_for(text=awkward_texts, cuts=st.lists(st.integers(0, 200), max_size=8), block=st.integers(1, 40))
def pieces_give_the_whole(tokenizer: Tokenizer, text: str, cuts: list[int], block: int) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    with mock.patch("receptance.tokenizers.tokenizer.BLOCK", block):
        found = [token for ids in tokenizer.encode_pieces(iter(pieces)) for token in ids]
    assert found == tokenizer.encode(text)


@holds_for(data=st.data())
def stream_gives_the_whole(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """After any number of ids, what came out is what they decode to, but for an unfinished character."""
    any_ids = st.lists(st.integers(0, tokenizer.vocab_size + 100), max_size=12)
    ids = data.draw(any_ids | awkward_texts.map(tokenizer.encode))
    decoder = tokenizer.stream()
    shown = ""
    for count, token in enumerate(ids, 1):
        shown += decoder.push(token)
        whole = tokenizer.decode_bytes(ids[:count])
        unfinished = next(n for n in range(4) if shown == whole[: len(whole) - n].decode("utf-8", "replace"))
        assert unfinished == 0 or begins_a_character(whole[-unfinished:])
    assert shown + decoder.finish() == tokenizer.decode(ids)


def begins_a_character(data: bytes) -> bool:
    """Whether more bytes could make one character of these."""
    endings = (b"", b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x80\x80", b"\xbf\xbf\xbf")
    for ending in endings[1:]:
        try:
            # Python waits for the last byte of half a surrogate pair too, before it calls it broken.
            if len((data + ending).decode("utf-8", "surrogatepass")) == 1:
                return True
        except UnicodeDecodeError:
            continue
    return False


few_letters = st.text(st.sampled_from("ab\n"), max_size=40)
stop_lists = st.lists(st.text(st.sampled_from("ab\n"), min_size=1, max_size=5), max_size=4)


@holds_for(text=few_letters, stops=stop_lists, cuts=st.lists(st.integers(0, 40), max_size=10))
def stops_are_found(text: str, stops: list[str], cuts: list[int]) -> None:
    """Against a slow search, character by character; nothing is held back that could be released."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    finder = StopFinder(stops)
    shown = ""
    for start, end in pairwise(places):
        shown += finder.push(text[start:end])
        released, found = slow_search(text[:end], stops)
        assert (shown, finder.found) == (released, found)
    rest = finder.finish()
    assert shown + rest == (text if finder.found is None else shown)
    assert finder.push(text) == "" or finder.found is None


def slow_search(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What of a text may be released, and the stop that was met."""
    for end in range(1, len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            longest = max(met, key=len)
            return text[: end - len(longest)], longest
    beginnings = {stop[:length] for stop in stops for length in range(len(stop))} | {""}
    held = max(len(start) for start in beginnings if text.endswith(start))
    return text[: len(text) - held], None


def _answers_or_refuses(call: Callable[[Any], object], argument: object) -> None:
    try:
        call(argument)
    except InputError as error:
        assert str(error)


answers_or_refuses = {
    "encode": holds_for(argument=st.text(st.characters(exclude_categories=[])))(_answers_or_refuses),
    "decode": holds_for(argument=st.lists(st.integers(-(2**70), 2**70) | st.integers(-1, 70_000)))(_answers_or_refuses),
}
