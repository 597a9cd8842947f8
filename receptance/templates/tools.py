"""Functions that a model may call: into its prompt, and its calls out of an answer.

    parse_tool_calls('```json\\n{"name": "add", "arguments": {"a": 1}}\\n```')     # [ToolCall("add", {"a": 1})]

Two forms exist.  JSON is the model author's own (RWKV-LM `RWKV-v7/RWKV7-G1x-templates.txt`): functions in the system
text, results in the user's turn.  MARKDOWN is that of vllm-rwkv and transformers-rwkv.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from .signatures import signature

_NAME = re.compile(r"[\w.:/-]{1,128}")
_FENCE = re.compile(r"```json")
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants to be called."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolForm:
    """How a template writes what belongs to tools.

    describe    the functions, as a part of the system text
    result      what a function returned, as the text of its turn
    call        some calls, as an assistant's answer
    opening     what makes an answer begin as a call; "" where nothing does
    """

    # Out of the representation, for a function's has an address, which differs from one process to the next.
    describe: Callable[[Sequence[Mapping[str, Any]]], str] = field(repr=False)
    result: Callable[[str], str] = field(repr=False)
    call: Callable[[Sequence[ToolCall]], str] = field(repr=False)
    opening: str


def functions_of(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The functions of tools in OpenAI's form (or already bare: name, description, parameters).

    Raises InputError for what is neither.
    """
    functions = []
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InputError(
                f"tool {number} is no function in OpenAI's form; "
                f'give {{"type": "function", "function": {{"name": ..., "parameters": ...}}}}'
            )
        if not _NAME.fullmatch(function["name"]):
            raise InputError(f"tool {number} is called {function['name']!r}; use letters, digits and _ . : / - only")
        _check_parameters(function)
        functions.append(function)
    return functions


def _check_parameters(function: Mapping[str, Any]) -> None:
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties") or {}, Mapping):
        raise InputError(f"the parameters of the tool {function['name']} must be a JSON schema of an object")
    if not isinstance(parameters.get("required") or [], list):
        raise InputError(f"`required` of the tool {function['name']} must be a list of names")
    try:
        json.dumps(function, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the tool {function['name']} cannot be written as JSON: {error}") from error


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _describe_json(functions: Sequence[Mapping[str, Any]]) -> str:
    """Both forms of the official file: signatures, or a list where there are descriptions to tell."""
    if any(function.get("description") for function in functions):
        lines = ["[", ",\n".join(_compact(_entry(function)) for function in functions), "]"]
    else:
        lines = [f"- {signature(function)}" for function in functions]
    return "\n".join(["Tools:", *lines, "Return only a JSON function call."])


def _entry(function: Mapping[str, Any]) -> dict[str, Any]:
    description = {"description": function["description"]} if function.get("description") else {}
    arguments = (function.get("parameters") or {}).get("properties") or {}
    return {"name": function["name"], **description, "arguments": arguments}


def _call_json(calls: Sequence[ToolCall]) -> str:
    written = [_compact({"name": call.name, "arguments": call.arguments}) for call in calls]
    return "\n".join(f"```json\n{call}\n```" for call in written)


def _describe_markdown(functions: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for function in functions:
        lines.append(f"### `{function['name']}`")
        if function.get("description"):
            lines.append(f"**Description:** {function['description']}")
        lines += ["**Parameters:**", "```json", _indented(function.get("parameters") or {}), "```"]
    return "\n".join(
        [
            *lines,
            "To call one of these tools, write exactly this format:",
            "**Tool Call:**",
            "```json",
            '{"name": "tool_name", "arguments": {"key": "value"}}',
            "```",
            "Do not invent tool call IDs or write tool outputs yourself.",
        ]
    )


def _call_markdown(calls: Sequence[ToolCall]) -> str:
    written = [_indented({"name": call.name, "arguments": call.arguments}) for call in calls]
    return "\n".join(f"**Tool Call:**\n```json\n{call}\n```" for call in written)


def _result_markdown(content: str) -> str:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = content
    return f"```json\n{_indented(value)}\n```"


# The model author's form: an answer is made to begin as a call.
JSON = ToolForm(_describe_json, lambda content: f"Function output:\n{content}", _call_json, " ```json")
# The form of vllm-rwkv and transformers-rwkv: a call stands below the line "**Tool Call:**".
MARKDOWN = ToolForm(_describe_markdown, _result_markdown, _call_markdown, "")


def parse_tool_calls(text: str) -> list[ToolCall]:
    """The calls in an answer: JSON objects with `name` and `arguments` in ```json fences, or an answer that is JSON.

    A fence may hold several calls or a list of them, need not be closed, and may be followed by text.  Valid JSON that
    is no call is text.  Where a fence holds broken JSON there are no calls at all: half of what was asked for is worse
    than none.
    """
    starts = [match.end() for match in _FENCE.finditer(text)] or [0]
    values: list[Any] = []
    read_to = 0
    for start in starts:
        if start < read_to:  # a fence inside a string of the last call
            continue
        try:
            found, read_to = _values(text, start)
        except (ValueError, RecursionError):
            return []
        values += found
    return [call for call in map(_as_call, values) if call is not None]


def _values(text: str, start: int) -> tuple[list[Any], int]:
    """The objects that stand one behind the other from a place on (lists opened), and where they end."""
    values: list[Any] = []
    while text.startswith(("{", "["), start := _past_space(text, start)):
        value, start = _DECODER.raw_decode(text, start)
        values += value if isinstance(value, list) else [value]
    return values, start


def _past_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    assert match is not None  # it matches nothing, too
    return match.end()


def _as_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments")
    if isinstance(arguments, str):  # as OpenAI's interface writes them
        try:
            arguments = _DECODER.decode(arguments)
        except (ValueError, RecursionError):
            return None
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
