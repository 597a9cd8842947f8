"""Functions in, calls out."""

import json
import re
from typing import Any

import pytest

from receptance.errors import InputError
from receptance.templates import (
    JSON,
    MARKDOWN,
    TEMPLATES,
    Message,
    ToolCall,
    ToolForm,
    TurnTemplate,
    parse_tool_calls,
)
from receptance.templates.signatures import type_name

G1, MARKDOWN_TEMPLATE = TEMPLATES["g1"], TEMPLATES["markdown"]
STRING = {"type": "string"}


def function(name: str, properties: dict[str, Any], required: list[str], description: str = "") -> dict[str, Any]:
    """A tool in OpenAI's form."""
    parameters = {"type": "object", "properties": properties, "required": required}
    about = {"description": description} if description else {}
    return {"type": "function", "function": {"name": name, **about, "parameters": parameters}}


SIGNATURES = [
    function("get_weather", {"location": STRING, "unit": {**STRING, "enum": ["celsius", "fahrenheit"]}}, ["location"]),
    function("get_stock_price", {"ticker": STRING}, ["ticker"]),
    function("translate_text", {"text": STRING, "target_language": STRING}, ["text", "target_language"]),
]
SLOTS = {"date": STRING, "duration_minutes": {"type": "integer"}, "time_window": STRING}
EVENT = {
    "title": STRING,
    "start_time": STRING,
    "end_time": STRING,
    "attendees": {"type": "array", "items": STRING},
}
DESCRIBED = [
    function("find_free_slots", SLOTS, [*SLOTS], "Find free calendar slots"),
    function("create_calendar_event", EVENT, [*EVENT], "Create a calendar event"),
]


def test_the_official_example_with_signatures() -> None:
    asked = [Message("user", 'Translate "Will it rain tomorrow?" into Japanese.')]
    text = (
        'System: Tools:\n- get_weather(location: string, unit?: "celsius" | "fahrenheit")\n'
        "- get_stock_price(ticker: string)\n- translate_text(text: string, target_language: string)\n"
        'Return only a JSON function call.\n\nUser: Translate "Will it rain tomorrow?" into Japanese.\n\n'
        "Assistant:"
    )
    assert G1.prompt(asked, tools=SIGNATURES) == text + " ```json"
    assert G1.prompt(asked, "on", tools=SIGNATURES) == text + " <think"
    assert G1.prompt(asked, tools=SIGNATURES, call=False) == text
    assert G1.opening(tools=SIGNATURES) == " ```json" and G1.opening(tools=SIGNATURES, call=False) == ""


def test_the_official_example_with_descriptions_and_a_result() -> None:
    call = ToolCall("find_free_slots", {"date": "2026-05-08", "duration_minutes": 30, "time_window": "afternoon"})
    messages = [
        Message("user", "Schedule a 30-minute sync with Bob on 2026-05-08 afternoon."),
        Message("assistant", JSON.call([call])),
        Message(
            "tool",
            '{"free_slots":[{"start":"2026-05-08T15:00:00+09:00","end":"2026-05-08T15:30:00+09:00"}],'
            '"bob_email":"bob@example.com"}',
        ),
    ]
    assert G1.prompt(messages, tools=DESCRIBED) == (
        'System: Tools:\n[\n{"name":"find_free_slots","description":"Find free calendar slots","arguments":'
        '{"date":{"type":"string"},"duration_minutes":{"type":"integer"},"time_window":{"type":"string"}}},\n'
        '{"name":"create_calendar_event","description":"Create a calendar event","arguments":{"title":'
        '{"type":"string"},"start_time":{"type":"string"},"end_time":{"type":"string"},"attendees":'
        '{"type":"array","items":{"type":"string"}}}}\n]\nReturn only a JSON function call.\n\n'
        "User: Schedule a 30-minute sync with Bob on 2026-05-08 afternoon.\n\n"
        'Assistant: ```json\n{"name":"find_free_slots","arguments":{"date":"2026-05-08","duration_minutes":30,'
        '"time_window":"afternoon"}}\n```\n\n'
        'User: Function output:\n{"free_slots":[{"start":"2026-05-08T15:00:00+09:00",'
        '"end":"2026-05-08T15:30:00+09:00"}],"bob_email":"bob@example.com"}\n\nAssistant: ```json'
    )


def test_tools_follow_the_system_text() -> None:
    text = G1.prompt([Message("system", "Be brief."), Message("user", "x")], tools=[{"name": "now"}])
    assert text.startswith("System: Be brief.\nTools:\n- now()\nReturn only a JSON function call.\n\nUser: x\n\n")


def test_the_markdown_form() -> None:
    call = ToolCall("now", {"zone": "UTC"})
    tools = [function("now", {"zone": STRING}, [], "The time")]
    messages = [
        Message("system", "Be brief."),
        Message("user", "When?"),
        Message("assistant", MARKDOWN.call([call])),
        Message("tool", '{"time":"12:00"}'),
    ]
    assert (
        MARKDOWN_TEMPLATE.prompt(messages, "on", tools)
        == """### System
Be brief.
### `now`
**Description:** The time
**Parameters:**
```json
{
  "type": "object",
  "properties": {
    "zone": {
      "type": "string"
    }
  },
  "required": []
}
```
To call one of these tools, write exactly this format:
**Tool Call:**
```json
{"name": "tool_name", "arguments": {"key": "value"}}
```
Do not invent tool call IDs or write tool outputs yourself.
### User
When?
### Assistant
**Tool Call:**
```json
{
  "name": "now",
  "arguments": {
    "zone": "UTC"
  }
}
```
### Tool Output
```json
{
  "time": "12:00"
}
```
### Assistant
<think"""
    )
    assert MARKDOWN.result("no JSON") == '```json\n"no JSON"\n```'


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({}, "any"),
        ({"type": "integer"}, "integer"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"anyOf": [{"type": "number"}, {"const": "auto"}]}, 'number | "auto"'),
        ({"type": "array"}, "array"),
        ({"type": "array", "items": {"enum": [1, 2]}}, "(1 | 2)[]"),
        ({"type": "array", "items": {"type": "array", "items": STRING}}, "string[][]"),
        ({"type": "object"}, "object"),
        ({"properties": {"a-b": STRING, "c d": {}}, "required": ["a-b"]}, '{a-b: string, "c d"?: any}'),
        ("nonsense", "any"),
    ],
    ids=str,
)
def test_types(schema: Any, name: str) -> None:
    assert type_name(schema) == name


def test_a_type_without_end_is_cut() -> None:
    schema: dict[str, Any] = dict(STRING)
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    assert type_name(schema) == "{a?: " * 8 + "object" + "}" * 8


ADD = ToolCall("add", {"a": 1, "b": [2, {"c": "```"}]})
OTHER = ToolCall("sub", {})


@pytest.mark.parametrize("form", [JSON, MARKDOWN], ids=["json", "markdown"])
@pytest.mark.parametrize("calls", [[], [ADD], [ADD, OTHER, ADD]], ids=len)
def test_calls_that_were_written_are_read(form: Any, calls: list[ToolCall]) -> None:
    assert parse_tool_calls(form.call(calls)) == calls
    assert parse_tool_calls(f"I shall call.\n{form.call(calls)}\n\nUser: {{and so on") == calls


CALL = json.dumps({"name": "add", "arguments": {"a": 1, "b": [2, {"c": "```"}]}})
READ = {
    "bare": (CALL, [ADD]),
    "bare, with text behind": (f" \n{CALL}\nThat is it.", [ADD]),
    "a list": (f"```json\n[{CALL}, {CALL}]\n```", [ADD, ADD]),
    "one behind the other": (f"```json\n{CALL}\n{CALL}\n```", [ADD, ADD]),
    "a fence that is not closed": (f"```json\n{CALL}", [ADD]),
    "arguments as a text": ('{"name": "sub", "arguments": "{}"}', [OTHER]),
    "another fence before": (f'```json\n{{"a": 1}}\n```\n```json\n{CALL}\n```', [ADD]),
    "text that looks like JSON": (f"[1] says\n```json\n{CALL}\n```", [ADD]),
    "unfinished": (f"```json\n{CALL}\n```\n```json\n{CALL[:-1]}", []),
    "broken": ('```json\n{"name": "add", "arguments": {a: 1}}\n```', []),
    "not a number": ('{"name": "add", "arguments": {"a": NaN}}', []),
    "no name": ('{"arguments": {}}', []),
    "no arguments": ('{"name": "add"}', []),
    "arguments that are a list": ('{"name": "add", "arguments": [1]}', []),
    "arguments that are a broken text": ('{"name": "add", "arguments": "{"}', []),
    "text": ("The answer is {4}.", []),
    "an empty fence": ("```json\n```", []),
    "nothing": ("", []),
    "nested without end": ("[" * 100_000, []),
    "a number without end": ('{"name": "add", "arguments": {"a": ' + "9" * 10_000 + "}}", []),
}


@pytest.mark.parametrize("case", READ)
def test_reading_calls(case: str) -> None:
    text, calls = READ[case]
    assert G1.parse_tool_calls(text) == calls


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("f", "tool 1 is no function in OpenAI's form; give"),
        ({"type": "function"}, "tool 1 is no function in OpenAI's form; give"),
        ({"name": "a b"}, "tool 1 is called 'a b'; use letters, digits and _ . : / - only"),
        ({"name": "a\n\nUser:"}, "tool 1 is called"),
        ({"name": "f", "parameters": []}, None),
        ({"name": "f", "parameters": [1]}, "the parameters of the tool f must be a JSON schema of an object"),
        ({"name": "f", "parameters": {"required": 1}}, "`required` of the tool f must be a list of names"),
        ({"name": "f", "parameters": {"properties": {"a": {1}}}}, "the tool f cannot be written as JSON: "),
    ],
    ids=str,
)
def test_tools_that_are_none(tool: Any, said: str | None) -> None:
    for template in (G1, MARKDOWN_TEMPLATE):
        if said is None:
            template.prompt([Message("user", "x")], tools=[tool])
            continue
        with pytest.raises(InputError, match=re.escape(said)):
            template.prompt([Message("user", "x")], tools=[tool])


def test_a_template_of_ones_own_with_a_form_of_its_own() -> None:
    form = ToolForm(
        describe=lambda functions: " ".join(f"<{function['name']}>" for function in functions),
        result=lambda content: f"={content}",
        call=lambda calls: " ".join(f"{call.name}()" for call in calls),
        opening=" ```json",
    )
    headings = {"system": "S: ", "user": "Q: ", "assistant": "A: ", "tool": "R: "}
    own = TurnTemplate(name="own", headings=headings, stops=("\n\n",), tools=form)
    turns = [Message("user", "x"), Message("assistant", form.call([ToolCall("now", {})])), Message("tool", "12:00")]
    asked = "S: <now>\n\nQ: x\n\nA: now()\n\nR: =12:00\n\nA: ```json"
    assert own.prompt(turns, tools=[{"name": "now"}]) == asked
    assert own.parse_tool_calls('{"name": "now", "arguments": {}}') == parse_tool_calls(
        '{"name": "now", "arguments": {}}'
    )


def test_a_form_is_represented_alike_in_every_process() -> None:
    """The reference shows it."""
    assert [repr(form) for form in (JSON, MARKDOWN)] == ["ToolForm(opening=' ```json')", "ToolForm(opening='')"]
