"""Templates that are data: each turn is a heading, a text and a closing.

    TurnTemplate(name="plain", headings={"user": "User: ", "assistant": "Assistant: "}, stops=("\\n\\n",))

The ones that exist are in `known`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError
from .template import Message, Template, check_messages
from .tools import ToolCall, ToolForm, functions_of, parse_tool_calls


@dataclass(frozen=True)
class Thinking:
    """One think mode: what the answer is made to begin with, and what is added to the user's text."""

    opening: str = ""
    suffix: str = ""


@dataclass(frozen=True, kw_only=True)
class TurnTemplate(Template):
    """A template whose turns all have one shape: heading, text, closing.

    headings         what the turn of each role begins with; a role that is missing is refused.  The space at the end of
                     one belongs to the text: a prompt ends before it, for the answer brings its own
    closing          what ends a turn
    squeezed         the roles whose blank lines are removed, because a blank line ends a turn
    reserved         letters that end a turn and what stands for them inside of a text
    thinking         the think modes
    intro            the beginning of a conversation that has no system message (an empty one leaves it out)
    tools            how tools are written; None where the family never saw any
    tool_template    who to take instead where there are tools, for those without a form of their own
    """

    name: str
    stops: tuple[str, ...]
    headings: Mapping[str, str]
    closing: str = "\n\n"
    squeezed: frozenset[str] = frozenset({"system", "user", "tool"})
    reserved: Mapping[str, str] = field(default_factory=dict)
    thinking: Mapping[str, Thinking] = field(default_factory=lambda: {"off": Thinking()})
    default_think: str = "off"
    intro: str = ""
    tools: ToolForm | None = None
    tool_template: TurnTemplate | None = None
    think_modes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "think_modes", tuple(self.thinking))

    def prompt(
        self,
        messages: Sequence[Message],
        think: str = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = True,
    ) -> str:
        check_messages(messages)
        opening = self.opening(think, tools, call)
        if tools:
            messages = self._with_tools(messages, tools)
        begin = "" if any(message.role == "system" for message in messages) else self.intro
        turns = [self._turn(message) for message in (*messages[:-1], self.as_sent(messages[-1], think))]
        return begin + "".join(turns) + self._heading("assistant") + opening

    def opening(self, think: str = "off", tools: Sequence[Mapping[str, Any]] = (), call: bool = True) -> str:
        self._check_think(think)
        thought = self.thinking[think].opening
        if tools and call and not thought:
            return self._tool_form().opening
        return thought

    def as_sent(self, message: Message, think: str = "off") -> Message:
        self._check_think(think)
        suffix = self.thinking[think].suffix
        if not suffix or message.role != "user" or message.raw is not None:
            return message
        return replace(message, raw=self._body(message) + suffix)

    def for_tools(self) -> TurnTemplate:
        if self.tools is None and self.tool_template is not None:
            return self.tool_template
        self._tool_form()
        return self

    def parse_tool_calls(self, text: str) -> list[ToolCall]:
        return parse_tool_calls(text) if self.tools is not None else []

    def _tool_form(self) -> ToolForm:
        if self.tools is None:
            instead = self.tool_template
            remedy = f"use the template {instead.name}, which its models know too" if instead else "leave them out"
            raise InputError(f"the template {self.name} has no form for tools; {remedy}")
        return self.tools

    def _with_tools(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The functions belong to the first system text, which comes into being where there is none."""
        described = self._tool_form().describe(functions_of(tools))
        first, *rest = messages
        if first.role != "system":
            return [Message("system", described), *messages]
        text = self._text(first)
        return [Message("system", f"{text}\n{described}" if text else described), *rest]

    def _turn(self, message: Message) -> str:
        if message.raw is None and message.role == "system" and not message.content.strip():
            return ""
        body = message.raw if message.raw is not None else self._body(message)
        return self._heading(message.role) + _closed(body, self.closing)

    def _heading(self, role: str) -> str:
        if role not in self.headings:
            raise InputError(f"the template {self.name} has no messages of the role {role!r}; leave them out")
        return self.headings[role].rstrip(" ")

    def _body(self, message: Message) -> str:
        text = self._text(message)
        heading = self._heading(message.role)
        return self.headings[message.role].removeprefix(heading) + text if text else ""

    def _text(self, message: Message) -> str:
        """The content as a turn may hold it; the cleaning of RWKV-LM `RWKV-v7/RWKV7-G1x-templates.txt`."""
        text = self._tool_form().result(message.content) if message.role == "tool" else message.content
        text = text.replace("\r\n", "\n")
        for letter, substitute in self.reserved.items():
            text = text.replace(letter, substitute)
        if message.role in self.squeezed:
            text = re.sub(r"\n{2,}", "\n", text)
        return text.strip()


def _closed(body: str, closing: str) -> str:
    """The body with the closing after it, of which a raw answer may already hold the beginning."""
    held = next(length for length in range(len(closing), -1, -1) if body.endswith(closing[:length]))
    return body + closing[held:]
