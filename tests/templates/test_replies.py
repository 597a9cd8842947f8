"""Thought and answer of a reply, however it is cut."""

import random

import pytest

from receptance.templates import Piece, ReplySplitter, split_reply

# opening, what the model generates, thought, answer
REPLIES = {
    "no thought": ("", " Yes.\n\nIt is.", "", "Yes.\n\nIt is."),
    "nothing": ("", "", "", ""),
    "white space": ("", " \n", "", ""),
    "a thought": (" <think", ">\nSo <b>?\n\nI see.\n</think>\n\n Yes <i>. ", "So <b>?\n\nI see.", "Yes <i>. "),
    "a thought of the flower": ("<think", ">a</think>b", "a", "b"),
    "nothing after the mark": (" <think", "", "", ""),
    "never closed": (" <think", ">\nSo on and </thin", "So on and </thin", ""),
    "never closed, with space": (" <think", ">\nSo on \n", "So on", ""),
    "no end of the mark": (" <think", " about it</think>x", "about it", "x"),
    "closed at once": (" <think", "></think>\nYes", "", "Yes"),
    "fast": (" <think>\n</think", ">\nYes </think> no", "", "Yes </think> no"),
    "fast, of the flower": ("<think></think", ">Yes", "", "Yes"),
    "fast, without the end of the mark": (" <think>\n</think", " Yes > no", "", "Yes > no"),
    "fast, and nothing": (" <think>\n</think", "", "", ""),
    "fast, and only the mark": (" <think>\n</think", ">", "", ""),
    "marks that are whole": ("<think>\n\n</think>\n\n", "> Yes", "", "> Yes"),
    "a mark that is whole": ("<think>\n", "a</think>b", "a", "b"),
    "a thought of its own": ("", " <think>\na\n</think>\nb", "a", "b"),
    "the mark inside of an answer": ("", "Write <think> and </think>.", "", "Write <think> and </think>."),
    "nearly a mark": ("", "<thinker> is", "", "<thinker> is"),
    "the beginning of a mark": ("", "<thi", "", "<thi"),
    "a second thought": (" <think", ">a<think>b</think>c</think>d", "a<think>b", "c</think>d"),
    "many little marks": (" <think", ">a<</</t</th</think</think>b", "a<</</t</th</think", "b"),
    "a call": (" ```json", '\n{"name": "f"}\n```', "", '```json\n{"name": "f"}\n```'),
}


def pieces_of(opening: str, parts: list[str]) -> list[Piece]:
    splitter = ReplySplitter(opening)
    pieces = [piece for part in parts for piece in splitter.push(part)] + splitter.finish()
    assert all(piece.text for piece in pieces)
    assert [piece.kind for piece in pieces] == sorted((piece.kind for piece in pieces), reverse=True)
    return pieces


def told_apart(pieces: list[Piece]) -> tuple[str, str]:
    return tuple("".join(p.text for p in pieces if p.kind == kind) for kind in ("thought", "answer"))  # type: ignore[return-value]


@pytest.mark.parametrize("case", REPLIES)
def test_a_reply_at_every_cut(case: str) -> None:
    opening, generated, thought, answer = REPLIES[case]
    cuts = [[generated[:i], generated[i:]] for i in range(len(generated) + 1)]
    for parts in [[], [generated], list(generated), *cuts]:
        if parts or not generated:
            said = told_apart(pieces_of(opening, parts))
            assert (said[0].rstrip(), said[1]) == (thought, answer), parts


def test_no_letter_is_lost_or_doubled() -> None:
    noise = random.Random(0)
    for _ in range(500):
        generated = ">" + "".join(noise.choice(["a", " ", "\n", "<", "</think", ">", "</"]) for _ in range(12))
        size = noise.randint(1, 5)
        parts = [generated[i : i + size] for i in range(0, len(generated), size)]
        thought, answer = told_apart(pieces_of(" <think", parts))
        whole, _, rest = generated[1:].partition("</think>")
        assert thought.split() == whole.split() and answer == rest.lstrip()


def test_text_comes_at_once() -> None:
    """Only what may still be a mark or white space before one is held back."""
    splitter = ReplySplitter(" <think")
    assert splitter.push(">\n") == []
    assert splitter.push("Well, a ") == [Piece("thought", "Well, a")]
    assert splitter.push("<") == []
    assert splitter.push("b\n</thi") == [Piece("thought", " <b")]
    assert splitter.push("nk>\n") == []
    assert splitter.push(" Yes") == [Piece("answer", "Yes")]
    assert splitter.push(" <") == [Piece("answer", " <")]
    assert splitter.finish() == []


@pytest.mark.parametrize("opening", ["", " <think", " <think>\n</think"])
def test_a_whole_reply_is_split_as_its_stream_is(opening: str) -> None:
    text = "> so\n</think>\n Four. "
    splitter = ReplySplitter(opening)
    pieces = [piece for letter in text for piece in splitter.push(letter)] + splitter.finish()
    parts = ("".join(piece.text for piece in pieces if piece.kind == kind).strip() for kind in ("thought", "answer"))
    assert split_reply(text, opening) == tuple(parts)
