"""Rewrite the line numbers of links into source files, from the marks in their titles.

    python -m tests.update_links        # or: make links

docs_pages.py explains the marks.  A link whose marks are gone is named and left as it is; then the exit code is 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .docs_pages import LINES, LINK, PAGES, ROOT, place


def update(page: Path) -> tuple[str, list[str]]:
    """The page's text with right line numbers, and a complaint for each link that cannot be placed."""
    complaints: list[str] = []

    def renumber(match: re.Match[str]) -> str:
        path, _, fragment = match["target"].partition("#")
        lines = LINES.match(fragment)
        if lines is None or match["title"] is None:
            return match[0]
        first, last = int(lines["first"]), int(lines["last"] or lines["first"])
        source = (page.parent / path).read_text("utf-8").splitlines() if (page.parent / path).is_file() else []
        found = place(source, match["title"], first, last)
        if found is None:
            complaints.append(f"{page.relative_to(ROOT)}: {path} has no {match['title']!r}")
            return match[0]
        ends = f"L{found[0]}-L{found[1]}" if lines["last"] else f"L{found[0]}"
        return f'[{match["text"]}]({path}#{ends} "{match["title"]}")'

    return LINK.sub(renumber, page.read_text("utf-8")), complaints


def main() -> int:
    failures = 0
    for page in PAGES:
        text, complaints = update(page)
        if text != page.read_text("utf-8"):
            page.write_text(text, "utf-8")
            print(f"updated {page.relative_to(ROOT)}")
        for complaint in complaints:
            print(complaint, file=sys.stderr)
        failures += len(complaints)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
