"""The function calls in an answer, and its text without them, while it streams.

    finder = CallFinder(template)
    for piece in pieces:
        print(finder.push(piece), end="")       # never the beginning of what may become a call
    text, calls = finder.finish()
"""

from __future__ import annotations

import json

from ..templates import Template, ToolCall
from ..tokenizers import StopFinder
from .forms import tool_form

FENCE = "```"
BEGIN = f"{FENCE}json"


class CallFinder:
    """Holds back what may be a call: from a fence of JSON on, or from the start where the answer begins as JSON.

    A fence that closes around JSON that is no call is text.  Otherwise it shows at the end of the answer, for half of
    the calls would be worse than none.  Text behind calls is dropped: models make up what was returned.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        # What a call begins with, with the heading that some templates have.
        self._marks = (BEGIN, tool_form(template).call([ToolCall("f", {})]).partition("{")[0].rstrip())
        self._finder = StopFinder(self._marks)
        self._answer = self._held = ""
        self._num_told = 0

    def push(self, text: str) -> str:
        """The text that belongs to no call, whatever follows."""
        begins = not self._answer.strip()
        self._answer += text
        if self._held:
            self._held += text
        elif begins and text.lstrip().startswith(("{", "[")):
            self._held = text
        told = self._search(text)
        self._num_told += len(told)
        return told

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What was held back and is text, and the calls."""
        calls = self._template.parse_tool_calls(self._answer)
        return ("" if calls else self._held) or self._finder.finish(), calls

    def _search(self, text: str) -> str:
        told = ""
        while True:
            if not self._held:
                told += self._finder.push(text)
                if self._finder.found is None:
                    return told
                self._held = self._answer[self._num_told + len(told) :]
            closed = self._closed() if FENCE[0] in text else ""
            if not closed:
                return told
            told, text, self._held = told + closed, self._held[len(closed) :], ""
            self._finder = StopFinder(self._marks)

    def _closed(self) -> str:
        """A fence at the beginning of what is held that turned out to be no call; "" where it still may be one."""
        if not self._held.startswith(self._marks):
            return ""
        content, end, behind = self._held.partition(BEGIN)[2].partition(FENCE)
        if not end:
            return ""
        fence = self._held[: len(self._held) - len(behind)]
        try:
            json.loads(content)
        except (ValueError, RecursionError):  # the end may be a part of a text in it
            return ""
        return "" if self._template.parse_tool_calls(fence) else fence
