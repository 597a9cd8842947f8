"""Finding where a generated text has to stop, while it arrives in pieces of any size.

    finder = StopFinder(["\\n\\nUser:"])
    for piece in pieces:
        print(finder.push(piece), end="")   # never the beginning of what may become a stop
        if finder.found is not None:
            break
    print(finder.finish(), end="")

A stop is text and not a token: "。\\n\\n" is one where "\\n\\n" was asked for, though no token of it is "\\n\\n".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..errors import InputError


class StopFinder:
    """Releases text up to the first stop.

    The stop that is complete first wins, and where several end at one place, the longest.  So the result does not
    depend on how the text is cut, and nobody has to wait to see whether a longer one follows.  What is held back is the
    longest end of the text that is the beginning of a stop.  Each character is looked at once, however many stops there
    are (Aho and Corasick, "Efficient string matching", 1975).

    found   the stop that was met, or None
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises InputError for an empty stop."""
        # A string is itself a sequence of strings, its characters, which nobody means.
        stops = (stops,) if isinstance(stops, str) else stops
        if "" in stops:
            raise InputError("a stop cannot be empty; leave it out")
        self.found: str | None = None
        self._held = ""
        self._state = 0
        self._grow(stops)
        self._link()

    def _grow(self, stops: Sequence[str]) -> None:
        """The tree of all beginnings of stops.  State 0 is the empty one."""
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._ends: list[str | None] = [None]
        for stop in stops:
            state = 0
            for character in stop:
                if character not in self._next[state]:
                    self._next[state][character] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[state] + 1)
                    self._ends.append(None)
                state = self._next[state][character]
            self._ends[state] = stop

    def _link(self) -> None:
        """For every beginning the longest other one that it ends in, found from the short ones to the long ones."""
        self._shorter = [0] * len(self._next)
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            # A stop within a beginning of another one.
            self._ends[state] = self._ends[state] or self._ends[self._shorter[state]]
            for character, child in self._next[state].items():
                self._shorter[child] = self._step(self._shorter[state], character)
                waiting.append(child)

    def _step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._shorter[state]
        return self._next[state].get(character, 0)

    def push(self, text: str) -> str:
        """The text that belongs to no stop, whatever follows; "" once a stop was found."""
        if self.found is not None:
            return ""
        held = self._held + text
        for position, character in enumerate(text, len(self._held) + 1):
            self._state = self._step(self._state, character)
            self.found = self._ends[self._state]
            if self.found is not None:
                self._held = ""
                return held[: position - len(self.found)]
        certain = len(held) - self._depth[self._state]
        self._held = held[certain:]
        return held[:certain]

    def finish(self) -> str:
        """What was held back, at the end of the text; "" once a stop was found."""
        held, self._held, self._state = self._held, "", 0
        return held
