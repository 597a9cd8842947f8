"""The form that a request asks its answer to have: of JSON, of a regular expression, of a grammar, of a call.

    answer_grammar(request, template, opening)           # of a conversation: a Grammar, or None for any answer
    text_grammar(request)                                # of a text to be continued
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..templates import JSON, Template, ToolCall, ToolForm, TurnTemplate
from .grammars import Form, Grammar
from .parts import JsonSchemaFormat, NamedTool, TextFormat, Tool
from .schemas import ChatRequest, CompletionRequest, GenerationRequest

# What a function without parameters is called with.
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def offered_tools(request: ChatRequest) -> Sequence[Tool]:
    """Those that the model is told of."""
    return () if request.tool_choice == "none" else request.tools or ()


def tool_form(template: Template) -> ToolForm:
    """How calls are written; a template of a user's own leaves that open, and gets the model author's form."""
    own = template.tools if isinstance(template, TurnTemplate) else None
    return own or JSON


def text_grammar(request: CompletionRequest) -> Grammar | None:
    """Of a text that is continued."""
    forms = _given_forms(request)
    return Grammar(forms, stops=tuple(request.stop or ())) if forms else None


def answer_grammar(request: ChatRequest, template: Template, opening: str) -> Grammar | None:
    """Of an answer with this opening.  Where tools are offered, a call may stand in place of the form."""
    forms = (*_json_forms(request), *_given_forms(request))
    if forms or request.forces_call:
        forms = (*forms, *(_call_form(tool, tool_form(template), opening) for tool in _callable_tools(request)))
    return Grammar(forms, opening, stops_of(request, template.stops, forms)) if forms else None


def stops_of(request: GenerationRequest, usual: tuple[str, ...], forms: Sequence[Form]) -> tuple[str, ...]:
    """What ends an answer.  JSON ends by itself, and may hold what would end another answer."""
    ends_itself = bool(forms) and all(form.kind == "json" for form in forms)
    return (*(() if ends_itself else usual), *(request.stop or ()))


def _json_forms(request: ChatRequest) -> tuple[Form, ...]:
    wanted = request.response_format
    if isinstance(wanted, TextFormat | None):
        return ()
    schema = wanted.json_schema.schema_ if isinstance(wanted, JsonSchemaFormat) else None
    return (Form("json", json.dumps(schema or {"type": "object"})),)


def _given_forms(request: GenerationRequest) -> tuple[Form, ...]:
    if request.regex is not None:
        return (Form("regex", request.regex),)
    return () if request.grammar is None else (Form("lark", request.grammar),)


def _callable_tools(request: ChatRequest) -> list[Tool]:
    choice = request.tool_choice
    named = choice.function.name if isinstance(choice, NamedTool) else None
    return [tool for tool in offered_tools(request) if named in (None, tool.function.name)]


def _call_form(tool: Tool, form: ToolForm, opening: str) -> Form:
    """A call as the template writes it, around the arguments; a part of it may be the opening already."""
    before, _, after = form.call([ToolCall(tool.function.name, {})]).rpartition("{}")
    schema = tool.function.parameters or NO_PARAMETERS
    return Form("json", json.dumps(schema), before.removeprefix(opening.strip()), after)
