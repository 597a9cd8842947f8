"""States of texts that were read before, so that what begins alike is not read again.

    cache = StateCache(max_bytes=2**30, store=StateStore(Path("states")))
    place = cache.find(root, tokens, cuts)             # the furthest place of this text whose state is known
    place = cache.after(place, tokens, state, x)       # ... and the next one, once it has been read
    cache.keep(place)

A text is read from cut to cut, and a place in it is named by the hash of all pieces before it: of their tokens and of
where they were cut.  So the same name means the same computation, and a state out of the cache is, to the bit, the one
that reading would give.  Names form a tree: texts with the same beginning share the first of their places.

Where an answer ends is a place too.  Its state was made token by token; it equals that of reading up to rounding.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from torch import Tensor

from ..state import State
from .store import StateStore

# Places whose answers are remembered by name, and answers of each: a few hundred bytes.
MOST_ANSWERED, MOST_ANSWERS = 2**14, 64
NAME_BYTES = 16


@dataclass(eq=False)
class Place:
    """Somewhere in a text, and what reading up to there gave.

    name    of everything before it
    length  tokens before it
    state   one row
    x       what the head is applied to after the last of them, [C]; None at the end of an answer
    answer  of the end of an answer: the name of the place where that begins, and how many tokens it has
    """

    name: bytes
    length: int
    state: State
    x: Tensor | None = None
    answer: tuple[bytes, int] | None = None

    @property
    def num_bytes(self) -> int:
        return self.state.num_bytes + (0 if self.x is None else self.x.nbytes)


def name_of(before: bytes, tokens: Sequence[int], is_answer: bool = False) -> bytes:
    """The name of a place: that of the place before it, and the tokens between them."""
    digest = hashlib.blake2b(before, digest_size=NAME_BYTES, person=b"answer" if is_answer else b"read")
    digest.update(array("q", tokens).tobytes())
    return digest.digest()


@dataclass
class Counts:
    """What the cache was good for so far.

    hits            texts of which a beginning was known; misses: of which none was
    saved_tokens    tokens that were not read again
    """

    hits: int = 0
    misses: int = 0
    saved_tokens: int = 0


@dataclass(frozen=True)
class Cuts:
    """Where the reading of a text is cut: at its marks, and between them after every `piece` tokens."""

    marks: Sequence[int]
    end: int
    piece: int

    def after(self, place: int) -> int:
        """The next one; `place` is before the end."""
        mark = next((mark for mark in self.marks if mark > place), self.end)
        return min(place + self.piece, mark, self.end)


class StateCache:
    """Places with their states: as many as fit into `max_bytes`, and behind them a store on the disk.

    Any place is found as long as somebody holds it, kept or not.  May be used by several threads.
    """

    def __init__(self, max_bytes: int, store: StateStore | None = None) -> None:
        self.max_bytes, self.store, self.counts = max_bytes, store, Counts()
        self.num_bytes = 0
        self._kept: OrderedDict[bytes, Place] = OrderedDict()
        self._alive: WeakValueDictionary[bytes, Place] = WeakValueDictionary()
        # The answers that followed a place: their names and lengths.
        self._answers: OrderedDict[bytes, dict[bytes, int]] = OrderedDict()
        self._lock = threading.RLock()
        if store is not None:
            for name, before, length in store.answers():
                self._remember_answer(name, before, length)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, place: Place, tokens: Sequence[int], cuts: Cuts) -> Place:
        """The furthest known place of a text that goes on from `place`; that itself where no other is known."""
        with self._lock:
            names = list(self._names(place.name, place.length, tokens, cuts))
        for name, length in reversed(names):
            found = self._get(name)
            # Where the text ends, only what the next token is chosen from is of use.
            if found is not None and (found.x is not None or length < cuts.end):
                return found
        return place

    def after(self, before: Place, tokens: Sequence[int], state: State, x: Tensor | None) -> Place:
        """The place after `before` and these tokens; without `x` it is the end of an answer."""
        answer = (before.name, len(tokens)) if x is None else None
        name = name_of(before.name, tokens, is_answer=x is None)
        place = Place(name, before.length + len(tokens), state, x, answer)
        with self._lock:
            self._alive[place.name] = place
        return place

    def keep(self, place: Place) -> None:
        """Keeps it until others were used more lately."""
        place = _on_cpu(place)
        if place.num_bytes > self.max_bytes:
            return
        with self._lock:
            if place.answer is not None:
                self._remember_answer(place.name, *place.answer)
            if place.name not in self._kept:
                self.num_bytes += place.num_bytes
                self._kept[place.name] = self._alive[place.name] = place
            self._kept.move_to_end(place.name)
            while self.num_bytes > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.num_bytes -= oldest.num_bytes
        if self.store is not None:
            self.store.write(place)

    def count(self, num_saved: int) -> None:
        """Takes note of a text of which so many tokens were known."""
        self.counts.hits += num_saved > 0
        self.counts.misses += num_saved == 0
        self.counts.saved_tokens += num_saved

    def close(self) -> None:
        """Waits until everything is on the disk."""
        if self.store is not None:
            self.store.close()

    def _names(self, name: bytes, start: int, tokens: Sequence[int], cuts: Cuts) -> Iterator[tuple[bytes, int]]:
        """Of all places of a text, from its beginning to its end; an answer that stands in it is followed."""
        while start < cuts.end:
            answer = self._answer_in(name, start, tokens)
            if answer is not None:
                name, start = answer
            else:
                cut = cuts.after(start)
                name, start = name_of(name, tokens[start:cut]), cut
            yield name, start

    def _answer_in(self, name: bytes, start: int, tokens: Sequence[int]) -> tuple[bytes, int] | None:
        """The longest known answer with which a text goes on at a place, by its name and where it ends."""
        answers = self._answers.get(name, {})
        for length in sorted(set(answers.values()), reverse=True):
            if start + length < len(tokens):
                known = name_of(name, tokens[start : start + length], is_answer=True)
                if known in answers:
                    return known, start + length
        return None

    def _remember_answer(self, name: bytes, before: bytes, length: int) -> None:
        answers = self._answers.setdefault(before, {})
        answers[name] = length
        if len(answers) > MOST_ANSWERS:
            del answers[next(iter(answers))]
        self._answers.move_to_end(before)
        if len(self._answers) > MOST_ANSWERED:
            self._answers.popitem(last=False)

    def _get(self, name: bytes) -> Place | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            found = self._alive.get(name)
        if found is None and self.store is not None and (found := self.store.read(name)) is not None:
            self.keep(found)
        return found


def _on_cpu(place: Place) -> Place:
    """Where memory is large."""
    if place.state.wkv.device.type == "cpu":
        return place
    return replace(place, state=place.state.to("cpu"), x=None if place.x is None else place.x.cpu())
