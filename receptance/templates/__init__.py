"""Chat templates: how a checkpoint was trained to read a conversation.

    template = template_for("rwkv7-g1h-7.2b-20260710-ctx10240.pth")      # or open_template("flower"), or a Jinja file
    prompt = template.prompt([Message("user", "Hello")], think="fast")
    splitter = ReplySplitter(template.opening("fast"))                   # tells thought and answer apart
    template.parse_tool_calls(answer)

Nothing here imports PyTorch, and Jinja is loaded when the first file is opened.
"""

from typing import TYPE_CHECKING, Any

from .known import TEMPLATES, open_template, template_for
from .replies import Piece, ReplySplitter, split_reply
from .template import ROLES, THINK_MODES, Message, Template
from .tools import JSON, MARKDOWN, ToolCall, ToolForm, parse_tool_calls
from .turns import Thinking, TurnTemplate

if TYPE_CHECKING:
    from .jinja import JinjaTemplate

__all__ = [
    "JSON",
    "MARKDOWN",
    "ROLES",
    "TEMPLATES",
    "THINK_MODES",
    "JinjaTemplate",
    "Message",
    "Piece",
    "ReplySplitter",
    "Template",
    "Thinking",
    "ToolCall",
    "ToolForm",
    "TurnTemplate",
    "open_template",
    "parse_tool_calls",
    "split_reply",
    "template_for",
]


def __getattr__(name: str) -> Any:
    if name != "JinjaTemplate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .jinja import JinjaTemplate

    return JinjaTemplate
