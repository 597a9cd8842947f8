"""The thought and the answer of a reply, told apart while it streams.

splitter = ReplySplitter(template.opening(think))
for text in generated:
    for piece in splitter.push(text):
        print(piece.kind, piece.text)
splitter.finish()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BEGIN, END = "<think>", "</think>"


@dataclass(frozen=True)
class Piece:
    """A part of a reply that is not empty."""

    kind: Literal["thought", "answer"]
    text: str


class ReplySplitter:
    """Cuts `opening + generated` into pieces of thought and answer, wherever the stream is cut.

    opening    what `Template.opening` gave: the prompt ends with it and the reply begins with it

    A reply is a thought where it begins with <think>, be it from the prompt or by the model itself; it stays one until
    the first </think>, or to its end where that never comes.  The marks belong to neither, nor does the white space
    around a thought and before an answer.  No other letter is lost or doubled, and one is held back only as long as it
    may turn out to be a part of a mark or of white space that is dropped.
    """

    def __init__(self, opening: str = "") -> None:
        # A prompt ends before the ">" of its mark, which is one token with what follows; the reply brings it.
        self._half_open = opening.endswith((BEGIN[:-1], END[:-1]))
        self._held = opening + ">" if self._half_open else opening
        self._part: Literal["start", "thought", "gap", "answer"] = "start"
        self._thought_begun = False

    def push(self, text: str) -> list[Piece]:
        """What can be said of the reply now that this has been generated."""
        if text and self._half_open:
            text = text.removeprefix(">")
            self._half_open = False
        self._held += text
        return self._advance()

    def finish(self) -> list[Piece]:
        """What was held back, once nothing follows any more."""
        pieces = self._advance()
        rest, self._held = self._held, ""
        if self._part == "thought" and rest.strip():
            pieces.append(Piece("thought", rest))
        elif self._part == "start" and rest.strip():
            pieces.append(Piece("answer", rest.lstrip()))
        return pieces

    def _advance(self) -> list[Piece]:
        pieces = []
        if self._part == "start":
            self._begin()
        if self._part == "thought":
            pieces += self._think()
        if self._part == "gap":
            self._held = self._held.lstrip()
            self._part = "answer" if self._held else "gap"
        if self._part == "answer" and self._held:
            pieces.append(Piece("answer", self._held))
            self._held = ""
        return pieces

    def _begin(self) -> None:
        text = self._held.lstrip()
        if text.startswith(BEGIN):
            self._part, self._held = "thought", text.removeprefix(BEGIN)
        elif not BEGIN.startswith(text):
            self._part = "gap"

    def _think(self) -> list[Piece]:
        if not self._thought_begun:
            self._held = self._held.lstrip()
        text, mark, rest = self._held.partition(END)
        if mark:
            self._part, said, self._held = "gap", text.rstrip(), rest
        else:
            safe = len(text[: len(text) - _begun(text, END)].rstrip())
            said, self._held = text[:safe], text[safe:]
        self._thought_begun = self._thought_begun or bool(said)
        return [Piece("thought", said)] if said else []


def split_reply(text: str, opening: str = "") -> tuple[str, str]:
    """Thought and answer of a whole reply, of which `text` was generated; without white space around them."""
    splitter = ReplySplitter(opening)
    pieces = [*splitter.push(text), *splitter.finish()]
    thought, answer = ("".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("thought", "answer"))
    return thought.strip(), answer.strip()


def _begun(text: str, mark: str) -> int:
    """How many letters at the end of a text may be the beginning of a mark."""
    return next(length for length in range(len(mark) - 1, -1, -1) if text.endswith(mark[:length]))
