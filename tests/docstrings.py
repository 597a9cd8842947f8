"""Markdown of docstrings, for the generated reference.

A docstring is paragraphs with empty lines between them.  Each is prose; code, which parses as Python or is indented; or
a list, whose lines are a name, two blanks or more, and what it means, further lines of that being indented.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

# The name does not end as a sentence does, behind which there are two blanks as well.
_ENTRY = re.compile(r"(?P<name>\w[^.!?:;`]{0,38}?[^.!?:;`\s]|\w) {2,}(?P<text>\S.*)")
# Within a list: names that are so long that a single blank is left, or that have a line to themselves.
_LONG_ENTRY = re.compile(r"(?P<name>\w+_\w+(?:, \w+_\w+)*)(?: (?P<text>\S.*))?")
_CODE_SPAN = re.compile(r"(`[^`]*`)")


def as_markdown(text: str) -> str:
    """A docstring as GitHub shows it."""
    parts: list[tuple[str, str]] = []
    for paragraph in filter(None, re.split(r"\n\s*\n", text)):
        code = dedent(paragraph)
        kind = "py" if _parses(code) else "text" if code != paragraph else ""
        # An empty line within code is no end of it.
        if kind and parts and parts[-1][0] == kind:
            parts[-1] = (kind, f"{parts[-1][1]}\n\n{code}")
        elif kind:
            parts.append((kind, code))
        else:
            parts += _prose_and_lists(paragraph.splitlines())
    return "\n\n".join(f"```{kind}\n{body}\n```" if kind in ("py", "text") else body for kind, body in parts)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, or what stands before its colon."""
    first = " ".join(text.partition("\n\n")[0].split())
    return escaped(re.split(r"(?<=[.!?])\s", first)[0])


def escaped(text: str) -> str:
    """Prose whose letters mean nothing else to Markdown; code in it stays as it is."""
    parts = _CODE_SPAN.split(text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([<*])", r"\\\1", re.sub(r"  +", " ", part)) for part in parts
    )


def comment_above(path: Path, name: str) -> str:
    """The comment above the place where a constant gets its value, in a module or in the package that it heads."""
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    for file in files:
        found = re.search(rf"((?:^#.*\n)+)^{name}\b[^\n=]*=", file.read_text("utf-8"), re.MULTILINE)
        if found:
            return re.sub(r"^# ?", "", found[1], flags=re.MULTILINE).strip()
    return ""


def _parses(paragraph: str) -> bool:
    try:
        ast.parse(paragraph)
    except SyntaxError:
        return False
    return True


def _prose_and_lists(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Kind and text of each part: prose, a list, or lines that are indented below prose and stay as they are."""
    kind, held = "", list[str]()
    for line in lines:
        entry = _ENTRY.fullmatch(line) or (_LONG_ENTRY.fullmatch(line) if kind == "list" else None)
        if entry or line.lstrip().startswith("* "):
            item = f"- `{entry['name']}`: {entry['text'] or ''}" if entry else f"- {line.lstrip()[2:]}"
            new = "list"
        elif kind == "list" and line.startswith("  "):
            held[-1] += " " + line.strip()
            continue
        elif kind and line.startswith("  "):
            item, new = line, "text"
        else:
            item, new = line.strip(), "prose"
        if kind and new != kind:
            yield kind, _joined(kind, held)
            held = []
        kind, held = new, [*held, item]
    yield kind, _joined(kind, held)


def _joined(kind: str, lines: list[str]) -> str:
    if kind == "text":
        return dedent("\n".join(lines))
    return escaped(" ".join(lines)) if kind == "prose" else "\n".join(map(escaped, lines))
