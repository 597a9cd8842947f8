"""The line of `receptance chat` that is being typed: editing, history, completion, and the status below it.

prompt = Prompt(session)
line = prompt.read()
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent

from .chat_commands import COMMANDS, MARK
from .chat_session import Session

PROMPT, CONTINUATION = "> ", "  "
# Longer messages are pasted and not typed; with them the file would grow without an end.
LONGEST_KEPT = 10_000
# Lines for the list of completions.
MENU = 6


class Prompt:
    """Where messages are typed.  Enter sends; Alt-Enter and Ctrl-J begin a new line; a paste stays one message."""

    def __init__(self, session: Session) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            key_bindings=_keys(),
            history=open_history(state_folder() / "chat_history"),
            completer=SlashCompleter(session),
            complete_while_typing=False,
            reserve_space_for_menu=MENU,
            bottom_toolbar=session.status,
            enable_suspend=True,
            search_ignore_case=True,
        )

    def read(self) -> str:
        """What was typed.  Raises EOFError for Ctrl-D on an empty line, KeyboardInterrupt for Ctrl-C."""
        return self._prompt.prompt()


def _keys() -> KeyBindings:
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=typing)
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("c-c", filter=typing)
    def interrupt(event: KeyPressEvent) -> None:
        # Keys that arrive at once with what ended the prompt are still looked at; then there is nothing to end.
        if event.app.is_running and not event.app.is_done:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @keys.add("escape", "enter", filter=typing)
    @keys.add("c-j", filter=typing)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class SlashCompleter(Completer):
    """Completes slash commands and what may follow them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not line.startswith(MARK) or "\n" in line:
            return
        name, space, argument = line.removeprefix(MARK).partition(" ")
        if not space:
            for other, command in COMMANDS.items():
                if other.startswith(name):
                    # With a blank where something follows, so that one can go on typing.
                    text = f"{other} " if command.argument else other
                    yield Completion(text, -len(name), display=MARK + other, display_meta=command.help)
        elif name in COMMANDS:
            if COMMANDS[name].is_file:
                yield from self._files.get_completions(Document(argument), complete_event)
            for choice in COMMANDS[name].choices(self._session):
                if choice.startswith(argument):
                    yield Completion(choice, -len(argument))


class KeptHistory(FileHistory):
    """A history in a file.  What cannot be read or written there is missing from it, and stops nothing."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with suppress(OSError, UnicodeError):
            if len(string) <= LONGEST_KEPT:
                super().store_string(string)


def open_history(path: Path) -> History:
    """The history in this file, which only its owner may read; one in memory where there can be none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return KeptHistory(path)


def state_folder() -> Path:
    """Where programs keep for a user what is neither a setting nor a cache: `XDG_STATE_HOME` and its likes."""
    given = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME", "")
    # The convention says that a relative path counts for nothing.
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.local/state"))
    return base / "receptance"
