"""What a chat template is: messages in, the text that a model was trained to answer out.

    template.prompt([Message("user", "Hello")])          # "User: Hello\\n\\nAssistant:"

A model knows one way of writing a conversation and answers badly in any other, so a template belongs to a checkpoint
(`template_for` tells which).  `turns` holds the templates that are data, `jinja` those that a user brings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .tools import ToolCall, parse_tool_calls

ROLES = ("system", "user", "assistant", "tool")

# From no thought to the longest.  "fast" opens and closes an empty thought, which costs nothing and still helps;
# "on" leaves the length to the model; the last three ask for a length in the user's text.
THINK_MODES = ("off", "fast", "on", "a bit", "some", "a lot")


@dataclass(frozen=True)
class Message:
    """One turn.

    role       "system", "user", "assistant" or "tool" (what a called function returned)
    content    what was said, without headings and thoughts
    raw        the exact text that stood after the role's heading; a template repeats it unchanged, so that a longer
               conversation begins with the text that the model's state has already read:
               prompt(messages + [Message("assistant", answer, opening + generated), ...]) starts with
               prompt(messages) + generated
    """

    role: str
    content: str
    raw: str | None = None


class Template(ABC):
    """One way of writing a conversation.

    stops            texts that end an answer and do not belong to it (besides the end-of-text token)
    think_modes      those of THINK_MODES that it has; "off" is always there
    default_think    the one to take where nobody says
    """

    name: str
    stops: tuple[str, ...]
    think_modes: tuple[str, ...]
    default_think: str

    @abstractmethod
    def prompt(
        self,
        messages: Sequence[Message],
        think: str = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = True,
    ) -> str:
        """The conversation as text; it ends where the answer begins.

        tools    functions in OpenAI's form: {"type": "function", "function": {"name", "description", "parameters"}}
        call     with tools and without a thought: whether the answer is made to begin as a function call

        Raises InputError where there is nothing to answer, for a role or think mode that does not exist, and for tools
        that are not in that form or that the template has no form for.
        """

    @abstractmethod
    def opening(self, think: str = "off", tools: Sequence[Mapping[str, Any]] = (), call: bool = True) -> str:
        """What such a prompt ends with that is already a part of the answer: "", " <think", " ```json"."""

    def as_sent(self, message: Message, think: str = "off") -> Message:
        """The last message of a prompt as later prompts must repeat it: with what the think mode added to its text."""
        self._check_think(think)
        return message

    def for_tools(self) -> Template:
        """The template to use in conversations with tools.  Raises InputError where there is none."""
        return self

    def parse_tool_calls(self, text: str) -> list[ToolCall]:
        """The function calls in an answer, in order; [] where there is none, or where one is broken or unfinished."""
        return parse_tool_calls(text)

    def _check_think(self, think: str) -> None:
        if think not in self.think_modes:
            raise InputError(
                f"the template {self.name} has no think mode {think!r}; choose one of: {', '.join(self.think_modes)}"
            )


def check_messages(messages: Sequence[Message]) -> None:
    """Raise InputError unless this is a conversation that somebody can answer."""
    if not messages:
        raise InputError("a conversation without messages cannot be answered; give at least one from the user")
    for message in messages:
        if message.role not in ROLES:
            raise InputError(f"a message has the role {message.role!r}; choose one of: {', '.join(ROLES)}")
        if not isinstance(message.content, str):
            raise InputError(f"the content of a message must be text and is {type(message.content).__name__}")
    if messages[-1].role == "assistant":
        raise InputError("the last message is the assistant's own; add one from the user or a tool for it to answer")
