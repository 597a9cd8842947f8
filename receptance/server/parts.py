"""What requests are made of, in OpenAI's shape: messages, tools, forms of an answer; and the bounds of all of it.

    UserMessage.model_validate({"role": "user", "content": "Hello"}).content     # [TextPart(text="Hello")]
    joined(content)                                                              # "Hello"
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# What one request may hold.  A bound is far above what makes sense and far below what would stop the server: reading,
# checking and rendering the largest request takes less than its first token does.
MOST_MESSAGES = 4096
MOST_CHARACTERS = 2**22
# OpenAI's own.
MOST_TOOLS = 128
# A schema is walked by functions that call themselves, and compiled into a grammar.
DEEPEST_JSON, LONGEST_JSON = 32, 2**17
LONGEST_NAME = 256


class Shape(BaseModel):
    """What a request is made of: no unknown fields, no texts for numbers, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _parts(content: Any) -> Any:
    """One text as a list of one part; parts that are no text are refused in words."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError("it must be a text or a list of parts of the type 'text'")
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text":
            raise ValueError(f"this model reads text only, and a part has the type {kind!r:.40}; send 'text' parts")
    return content


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that may be walked and written without care."""
    level: list[Any] = [value]
    for _ in range(DEEPEST_JSON):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST_JSON} levels deep; flatten it")
    try:
        length = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except ValueError as error:
        raise ValueError("it holds NaN, Infinity or half of a surrogate pair, which JSON cannot; correct it") from error
    if length > LONGEST_JSON:
        raise ValueError(f"it is longer than {LONGEST_JSON:,} bytes; make it shorter")
    return value


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Identifier = Annotated[str, Field(max_length=512)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Json = Annotated[dict[str, Any], AfterValidator(_bounded)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class TextPart(Shape):
    """A part of a message."""

    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], Field(max_length=MOST_MESSAGES)]
Content = Annotated[Parts, BeforeValidator(_parts, json_schema_input_type=Text | Parts)]


def joined(content: list[TextPart] | None) -> str:
    """The text of a content, whose parts are lines or paragraphs."""
    return "\n".join(part.text for part in content or ())


class SystemMessage(Shape):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Shape):
    """What a user says."""

    role: Literal["user"]
    content: Content
    name: Name | None = None


class CalledFunction(Shape):
    """A function with its arguments."""

    name: FunctionName
    arguments: Text = Field(description="A JSON object, as a text.")


class CallOfAssistant(Shape):
    """A call that the model asked for earlier."""

    id: Identifier
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Shape):
    """What the model said earlier, as it came out of this server."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: Annotated[list[CallOfAssistant], Field(min_length=1, max_length=MOST_TOOLS)] | None = None
    name: Name | None = None
    refusal: Text | None = Field(None, description="Changes nothing.")
    reasoning_content: Text | None = Field(None, description="Changes nothing: models do not read earlier thoughts.")
    annotations: list[Json] | None = Field(None, max_length=16, description="Changes nothing.")
    audio: None = Field(None, description="Always null.")
    function_call: None = Field(None, description="Always null; use tool_calls.")

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and self.tool_calls is None:
            raise ValueError("a message of the assistant needs content or tool_calls")
        return self


class ToolMessage(Shape):
    """What a called function returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Identifier
    name: Name | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(Shape):
    """A function that the model may call."""

    name: FunctionName
    description: Text | None = None
    parameters: Json | None = Field(None, description="A JSON schema of an object.")
    strict: bool | None = Field(None, description="Changes nothing.")


class Tool(Shape):
    """A tool; there are functions only."""

    type: Literal["function"]
    function: Function


class FunctionReference(Shape):
    """A function by its name."""

    name: FunctionName


class NamedTool(Shape):
    """The tool that is to be called."""

    type: Literal["function"]
    function: FunctionReference


class TextFormat(Shape):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Shape):
    """A JSON object of any kind."""

    type: Literal["json_object"]


class SchemaOfAnswer(Shape):
    """A JSON schema by a name."""

    name: FunctionName
    description: Text | None = None
    schema_: Json | None = Field(None, alias="schema", description="The schema; any object where there is none.")
    strict: bool | None = Field(None, description="Changes nothing: the answer always has this form.")


class JsonSchemaFormat(Shape):
    """JSON of a given form."""

    type: Literal["json_schema"]
    json_schema: SchemaOfAnswer


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
