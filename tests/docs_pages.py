"""README.md, docs/ and their like taken apart: fenced blocks that are run, and links that are followed.

How a page tells the tests what to do; nothing of this shows on the rendered page:

    ```python               run, in the order of the page; all blocks of a page share one namespace and one empty folder
    ```sh                   every line is a command, run in the same folder
    ```console              lines that begin with `$ ` are commands; what stands below one must occur in its output, in
                            this order, where `…` stands for anything or nothing, and runs of blanks are one
    any other fence         not run

    <!-- run instead: receptance quickstart --seconds 2 -->
                            on the line above a fence: the tests run this in place of the block (several commands: one
                            such line each).  For what takes minutes, a network or another checkout.

    <!-- exits: 2 -->       also above a fence: every command of the block ends with this exit code, instead of 0

    make TARGET             is not made, but must be a target of the Makefile

    [the decay](../receptance/models/rwkv7.py#L40-L44 "log_w = … return")
                            the linked lines begin with a line that contains `log_w =` and end with one that contains
                            `return` (the second mark may be left out); `make links` puts new line numbers in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE_THE_CODE = [ROOT / "receptance" / "ops" / "README.md", ROOT / "examples" / "README.md"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *BESIDE_THE_CODE]

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_INSTEAD = re.compile(r"^\s*<!-- run instead: (.+?) -->\s*$")
_EXITS = re.compile(r"^\s*<!-- exits: (\d+) -->\s*$")
LINK = re.compile(r'\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+"(?P<title>[^"]*)")?\)')
LINES = re.compile(r"^L(?P<first>\d+)(?:-L(?P<last>\d+))?$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, where it begins, its lines, commands to run in its place, expected exit code."""

    language: str
    line: int
    text: str
    instead: tuple[str, ...] = ()
    exits: int = 0


@dataclass(frozen=True)
class Command:
    """A command line, what the page says that it prints, and its exit code."""

    text: str
    output: tuple[str, ...] = ()
    exits: int = 0


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    instead: list[str] = []
    exits = 0
    opened: tuple[str, str, int] | None = None
    body: list[str] = []
    for number, line in enumerate(page.splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, body = (fence[1], fence[2], number), []
        elif opened is not None and fence and not fence[2]:
            indent, language, start = opened
            yield Block(language, start, "\n".join(text.removeprefix(indent) for text in body), tuple(instead), exits)
            opened, instead, exits = None, [], 0
        elif opened is not None:
            body.append(line)
        elif substitute := _INSTEAD.match(line):
            instead.append(substitute[1])
        elif code := _EXITS.match(line):
            exits = int(code[1])
        elif line.strip() and (instead or exits):
            raise ValueError(f"line {number}: a mark for the tests must stand right above a fence")
    if opened is not None:
        raise ValueError(f"line {opened[2]}: this fence is never closed")


def commands(block: Block) -> list[Command]:
    """The commands of a `sh` or `console` block."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if block.language == "sh":
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(Command(line.strip(), (), block.exits))
        elif line.startswith("$ "):
            found.append(Command(line[2:], (), block.exits))
        elif line.strip():
            if not found:
                raise ValueError(f"line {block.line}: a console block begins with a `$ ` line")
            found[-1] = replace(found[-1], output=(*found[-1].output, line))
    return found


def prints(output: str, promised: tuple[str, ...]) -> str | None:
    """The first promised line that the output does not have, or None."""
    rest = " ".join(output.split())
    for line in promised:
        parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
        pattern = ".*?".join(parts)
        match = re.search(pattern, rest)
        if match is None:
            return line
        rest = rest[match.end() :]
    return None


def prose(page: str) -> str:
    """The page with its fenced blocks and inline code blanked out, line numbers kept."""
    outside, kept = True, []
    for line in page.splitlines():
        if _FENCE.match(line):
            outside = not outside
            kept.append("")
        else:
            kept.append(re.sub(r"`[^`]*`(?!\])", "", line) if outside else "")
    return "\n".join(kept)


def links(page: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Line number and match (text, target, title) of every link on a page."""
    for number, line in enumerate(prose(page).splitlines(), start=1):
        yield from ((number, match) for match in LINK.finditer(line))


def anchors(page: str) -> set[str]:
    """The names by which a page's headings can be linked, as GitHub makes them."""
    names: set[str] = set()
    for line in re.sub(r"(?ms)^\s*```.*?^\s*```", "", page).splitlines():
        if heading := re.match(r"#+\s+(.*?)\s*$", line):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            names.add(slug if slug not in names else f"{slug}-1")
    return names


def marks(title: str) -> tuple[str, str | None]:
    """What the first and (None: nothing) the last linked line must contain."""
    first, ellipsis, last = title.partition("…")
    return first.strip(), last.strip() if ellipsis else None


def place(source: list[str], title: str, first: int, last: int) -> tuple[int, int] | None:
    """Where the marked lines stand now: of several candidates those nearest to lines `first` to `last`."""
    begin, end = marks(title)
    starts = [number for number, line in enumerate(source, start=1) if begin in line]
    if not starts:
        return None
    start = min(starts, key=lambda number: abs(number - first))
    if end is None:
        return start, start + last - first
    expected = start + last - first
    stops = [number for number, line in enumerate(source, start=1) if end in line and number >= start]
    return (start, min(stops, key=lambda number: abs(number - expected))) if stops else None
