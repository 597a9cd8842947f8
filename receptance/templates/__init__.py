"""Chat templates: how a checkpoint was trained to read a conversation.

    template = template_for("rwkv7-g1h-7.2b-20260710-ctx10240.pth")      # or open_template("flower"), or a Jinja file
    prompt = template.prompt([Message("user", "Hello")], think="fast")
    splitter = ReplySplitter(template.opening("fast"))                   # tells thought and answer apart
    template.parse_tool_calls(answer)

Nothing here imports PyTorch.
"""

from .known import TEMPLATES, open_template, template_for
from .replies import Piece, ReplySplitter
from .template import ROLES, THINK_MODES, Message, Template
from .tools import ToolCall
from .turns import Thinking, TurnTemplate

__all__ = [
    "ROLES",
    "TEMPLATES",
    "THINK_MODES",
    "Message",
    "Piece",
    "ReplySplitter",
    "Template",
    "Thinking",
    "ToolCall",
    "TurnTemplate",
    "open_template",
    "template_for",
]
