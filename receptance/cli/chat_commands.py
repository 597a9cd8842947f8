"""The slash commands of `receptance chat`: a table, from which the help, the completions and the suggestions come.

perform("/fork 2", session, screen)

A command prints through the screen and raises InputError or StateError, in one sentence, where it cannot do its work.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from .chat_session import SETTINGS, Session, check_setting, excerpt

if TYPE_CHECKING:
    from ..templates import Piece
    from .chat_screen import Screen

MARK = "/"
# What stands for "no system text", as an empty one asks for the present one.
NOTHING = "-"


@dataclass(frozen=True)
class Command:
    """What a slash command does.

    argument    how its argument is named in the help, in brackets where it may be left out; "" where it takes none
    help        what it does, for one line of the help
    choices     what Tab offers for the argument
    is_file     whether the argument is the name of a file
    """

    run: Callable[[Session, Screen, str], None]
    argument: str
    help: str
    choices: Callable[[Session], Iterable[str]] = lambda session: ()
    is_file: bool = False


def perform(line: str, session: Session, screen: Screen) -> None:
    """Do what a line asks for that begins with a slash.  Raises InputError where there is no such command."""
    name, argument = ([*line.removeprefix(MARK).split(maxsplit=1), "", ""])[:2]
    command = COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean /{close[0]}?" if close else "/help lists them"
        raise InputError(f"there is no command /{name}; {hint} (write // to send a message that begins with /)")
    if argument and not command.argument:
        raise InputError(f"/{name} takes nothing after its name")
    if not argument and command.argument and not command.argument.startswith("["):
        raise InputError(f"/{name} needs something after its name: /{name} {command.argument}")
    command.run(session, screen, argument.strip())


def answer(session: Session, screen: Screen, pieces: Generator[Piece, None, None]) -> None:
    """Show an answer as it comes, and say why it ended where that is not plain to see."""
    chat, before = session.chat, session.chat.moment
    stopped = screen.answer(pieces)
    if chat.moment is before:
        if stopped:
            screen.say("[stopped before the answer began; the message was not kept]")
    elif stopped:
        screen.say("[stopped]")
    elif chat.reply is not None and chat.reply.finish_reason == "length":
        screen.say(f"[cut after {chat.max_tokens} tokens; /set max_tokens=N allows more]")
    elif chat.reply is not None and not chat.reply.text:
        screen.say("[an empty answer]")


def _undo(session: Session, screen: Screen, _: str) -> None:
    gone = session.chat.undo()
    what = f"took back: {excerpt(gone[0].content)}" if gone else "it is as before"
    screen.say(f"{what} ({_messages(session.chat.messages)})")


def _retry(session: Session, screen: Screen, _: str) -> None:
    answer(session, screen, session.retry())


def _fork(session: Session, screen: Screen, number: str) -> None:
    if number:
        session.go_to(number)
    else:
        session.fork()
    for place, branch in enumerate(session.branches):
        mark = "*" if place == session.current else " "
        messages = branch.chat.messages
        last = next((message.content for message in reversed(messages) if message.role == "user"), "")
        screen.say(f"{mark} {place + 1}  {_messages(messages)}  {excerpt(last)}".rstrip())
    screen.say("/fork N goes to another branch")


def _save(session: Session, screen: Screen, path: str) -> None:
    from ..describe import readable_bytes

    file = session.save(path)
    screen.say(f"saved to {file} ({_messages(session.chat.messages)}, {readable_bytes(file.stat().st_size)})")


def _load(session: Session, screen: Screen, path: str) -> None:
    session.load(path)
    tell_loaded(session, screen)


def tell_loaded(session: Session, screen: Screen) -> None:
    """What was found in the file of the present branch."""
    branch = f", as branch {session.current + 1}" if len(session.branches) > 1 else ""
    screen.say(f"loaded {session.branch.file} ({_messages(session.chat.messages)}{branch})")
    if session.chat.messages:
        screen.say(f"it ended: {excerpt(session.chat.messages[-1].content)}")


def _reset(session: Session, screen: Screen, _: str) -> None:
    session.chat.reset()
    screen.say("forgotten; /undo brings it back")


def _system(session: Session, screen: Screen, text: str) -> None:
    chat = session.chat
    if text:
        chat.system = None if text == NOTHING else text
        screen.say("the conversation is read again with the next message" if chat.messages else "taken")
    elif chat.system is None:
        screen.say("there is no system text; /system TEXT sets one")
    else:
        screen.say(f"{chat.system}\n(/system {NOTHING} removes it)")


def _think(session: Session, screen: Screen, mode: str) -> None:
    if mode:
        session.set_think(mode)
    screen.say(f"think {session.chat.think} (of: {', '.join(session.chat.template.think_modes)})")


def _set(session: Session, screen: Screen, assignment: str) -> None:
    wanted = assignment.partition("=")[0].strip()
    if "=" in assignment:
        session.set(assignment)
    elif assignment:
        check_setting(wanted)
    for name, value in session.settings().items():
        if wanted in ("", name):
            screen.say(f"{name}={value}" + (" (changed)" if name in session.chat.settings else ""))


def _help(session: Session, screen: Screen, _: str) -> None:
    left = {f"/{name} {command.argument}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, left))
    screen.say("\n".join(f"{title:<{width}}  {text}" for title, text in left.items()))
    screen.say(screen.keys)


def _exit(session: Session, screen: Screen, _: str) -> None:
    session.ended = True


def _messages(messages: tuple[object, ...]) -> str:
    return "1 message" if len(messages) == 1 else f"{len(messages)} messages"


COMMANDS: dict[str, Command] = {
    "undo": Command(_undo, "", "take back the last message and its answer"),
    "retry": Command(_retry, "", "another answer to the last message"),
    "fork": Command(
        _fork,
        "[N]",
        "go on in a new branch, or in branch N",
        lambda session: map(str, range(1, len(session.branches) + 1)),
    ),
    "save": Command(_save, "[FILE]", "write the conversation to a file", is_file=True),
    "load": Command(_load, "FILE", "go on with a conversation that was saved", is_file=True),
    "reset": Command(_reset, "", "forget everything that was said"),
    "system": Command(_system, "[TEXT]", f"show or set the system text; {NOTHING} removes it", lambda _: (NOTHING,)),
    "think": Command(
        _think, "[MODE]", "show or set how much is thought first", lambda session: session.chat.template.think_modes
    ),
    "set": Command(
        _set,
        "[NAME=VALUE]",
        "show or change how words are chosen",
        lambda session: (f"{name}=" for name in SETTINGS),
    ),
    "help": Command(_help, "", "this list"),
    "exit": Command(_exit, "", "leave; so does Ctrl-D"),
    "quit": Command(_exit, "", "leave"),
}
