"""What a person at `receptance chat` is in the middle of: branches of a conversation, and settings that were changed.

session = Session(lm.chat(), {"temperature": 0.7})
session.fork()
session.set("top_p=0.5")
for piece in session.stream("Hello"): ...

Knows neither the screen nor the slash commands (`chat_screen.py`, `chat_commands.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display import printable
from ..errors import InputError

if TYPE_CHECKING:
    from ..generation import Chat
    from ..templates import Piece, Template

# What `/set` changes, and how its value is read.
SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "penalty_decay": float,
    "order": str,
    "max_tokens": int,
    "seed": int,
}
# The settings of a conversation itself; the others are those of `Sampling`.
OWN = ("max_tokens", "seed")
EXCERPT = 50


@dataclass
class Branch:
    """One of the ways that a conversation went.

    file    where it was saved to or loaded from; only this one may be replaced without a question
    """

    chat: Chat
    file: Path | None = None


class Session:
    """The branches of a conversation, of which one is the present.

    ended      whether the person has asked to leave
    """

    def __init__(self, chat: Chat) -> None:
        self.branches = [Branch(chat)]
        self.current = 0
        self.ended = False
        # It has one size from the first token to the last.
        self.state_bytes = chat.model.zero_state(1).num_bytes

    @property
    def branch(self) -> Branch:
        """The present branch."""
        return self.branches[self.current]

    @property
    def chat(self) -> Chat:
        """The conversation of the present branch."""
        return self.branch.chat

    def stream(self, message: str) -> Generator[Piece, None, None]:
        """The answer to a message."""
        return self.chat.stream(message)

    def retry(self) -> Generator[Piece, None, None]:
        """The last answer anew.  Raises InputError where there is none."""
        return self.chat.retry()

    def fork(self) -> None:
        """Go on in a new branch."""
        self._add(Branch(self.chat.fork()))

    def go_to(self, number: str) -> None:
        """Go on in another branch; they are numbered from 1.  Raises InputError where there is none of that number."""
        if number not in map(str, range(1, len(self.branches) + 1)):
            raise InputError(f"there is no branch {number}; the branches are numbered from 1 to {len(self.branches)}")
        self.current = int(number) - 1

    def save(self, path: str) -> Path:
        """Write the present branch to a file; "" is the one it was saved to before or loaded from.

        Raises InputError where that is not known or where the file is another one's, and what `Chat.save` raises.
        """
        if not path and self.branch.file is None:
            raise InputError("this branch has no file yet; name one: /save FILE")
        file = _absolute(path) if path else self.branch.file
        assert file is not None
        if file != self.branch.file and os.path.lexists(file):
            raise InputError(f"{file} is there already and was not saved from this branch; take another name")
        self.chat.save(file)
        self.branch.file = file
        return file

    def load(self, path: str) -> None:
        """Go on with a saved conversation: in a new branch where something has been said in this one.

        Raises what `Chat.load` raises; then nothing changes.
        """
        file = _absolute(path)
        loaded = Branch(self.chat.fork(), file)
        loaded.chat.load(file)
        if self.chat.messages:
            self._add(loaded)
        else:
            self.branches[self.current] = loaded

    def take_over(self, system: str | None, think: str | None, template: Template | None) -> None:
        """Go on with a loaded conversation as it is wished now; None: as it was saved, where that is possible.

        Raises InputError for a think mode that the template does not have.
        """
        chat = self.chat
        chat.system = chat.system if system is None else system
        chat.template = template or chat.template
        saved = chat.think if chat.think in chat.template.think_modes else chat.template.default_think
        self.set_think(saved if think is None else think)

    def set(self, assignment: str) -> None:
        """Change a setting as `name=value` says; with nothing behind the = it becomes the preset's again.

        Raises InputError for a name or value that cannot be.
        """
        from ..generation.presets import sampling_of

        name, _, text = (part.strip() for part in assignment.partition("="))
        check_setting(name)
        if name in OWN:
            self._set_own(name, _value(name, text))
        else:
            changes = {other: value for other, value in self.chat.settings.items() if other != name}
            if text:
                changes[name] = _value(name, text)
            sampling_of(self.chat.effective_sampling(), changes)
            for branch in self.branches:
                branch.chat.settings = dict(changes)

    def set_think(self, mode: str) -> None:
        """Raises InputError for a mode that the template does not have."""
        self.chat.template.opening(mode, self.chat.tools)
        self.chat.think = mode

    def settings(self) -> dict[str, Any]:
        """The settings as they are."""
        sampling = self.chat.effective_sampling()
        return {name: getattr(self.chat if name in OWN else sampling, name) for name in SETTINGS}

    def status(self) -> str:
        """Speed, what was read, and where we are, on one line."""
        from ..describe import readable_bytes

        chat = self.chat
        parts = [
            f"{chat.reply.tokens_per_second:,.1f} tokens/s" if chat.reply else "",
            f"{chat.moment.num_tokens:,} tokens read",
            f"state {readable_bytes(self.state_bytes)}",
            f"think {chat.think}",
            f"branch {self.current + 1} of {len(self.branches)}" if len(self.branches) > 1 else "",
        ]
        return " · ".join(part for part in parts if part)

    def _set_own(self, name: str, value: int) -> None:
        from ..generation import Sampling

        if name == "seed":
            self.chat.seed = Sampling(seed=value).seed or 0
        elif value < 1:
            raise InputError(f"max_tokens must be at least 1, got {value}")
        else:
            for branch in self.branches:
                branch.chat.max_tokens = value

    def _add(self, branch: Branch) -> None:
        self.branches.append(branch)
        self.current = len(self.branches) - 1


def check_setting(name: str) -> None:
    """Raise InputError unless a setting has this name."""
    if name not in SETTINGS:
        names = ", ".join(SETTINGS)
        raise InputError(f"there is no setting {name!r}; write /set temperature=0.7, or another of: {names}")


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = printable(text[: 4 * EXCERPT])
    return line if len(line) <= EXCERPT and len(text) <= 4 * EXCERPT else line[: EXCERPT - 1] + "…"


def _absolute(path: str) -> Path:
    # Neither a zero nor a byte that is no UTF-8 gets through all libraries on the way to the file.
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in path):
        raise InputError(f"{path!r} cannot be the name of a file; take another one")
    # `Path.expanduser` fails where there is no such user.
    return Path(os.path.expanduser(path)).absolute()


def _value(name: str, text: str) -> Any:
    read = SETTINGS[name]
    try:
        return read(text)
    except ValueError:
        kind = "a whole number" if read is int else "a number"
        raise InputError(f"{name} must be {kind}, got {text!r}") from None
