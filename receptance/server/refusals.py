"""Why a request is refused: one sentence, and the field that it is about.

    try:
        ChatRequest.model_validate(body)
    except ValidationError as error:
        refusal = refusal_of(error.errors(), body)     # Refusal("temperature should be ..., got 9", "temperature")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..display import printable

# How much of what was sent is told back.
LONGEST_ECHO, LONGEST_PATH = 60, 200


class Refusal(NamedTuple):
    """A sentence for the user, and the field's path, where it is about one."""

    message: str
    param: str | None


def refusal_of(errors: Sequence[Mapping[str, Any]], body: Any) -> Refusal:
    """What to tell of pydantic's errors about a body: the one that lies deepest in it, which is the most particular."""
    error = max(errors, key=lambda error: len(error["loc"]))
    name = printable(".".join(map(str, _path(error, body))))[:LONGEST_PATH]
    return Refusal(_sentence(error, name), name or None)


def _path(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where an error is, in the body's own words: without the names that pydantic gives to kinds of values."""
    path: list[str | int] = []
    *places, last = error["loc"] or ("",)
    for place in places:
        if _has(body, place):
            path.append(place)
            body = body[place]
    if _has(body, last) or error["type"] == "missing":
        path.append(last)
    return path


def _has(value: Any, place: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(place, int) and place < len(value)
    return isinstance(value, dict) and place in value


def _sentence(error: Mapping[str, Any], name: str) -> str:
    kind, said, context = error["type"], str(error["msg"]), error.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing; give it"
    if kind == "extra_forbidden":
        return f"there is no field {name}; leave it out"
    if kind == "value_error":
        said = said.removeprefix("Value error, ")
        return f"{name}: {said}" if "." in name or (name and not said.startswith(name)) else said
    if kind == "json_invalid":
        return f"the body is not JSON: {context.get('error', said)}"
    if kind == "union_tag_invalid":
        field, choices, tag = context["discriminator"], context["expected_tags"], context["tag"]
        return f"{field} of {name} must be one of {choices}, got {_echo(tag)}"
    if kind == "union_tag_not_found":
        return f"{name} needs the field {context['discriminator']}; give it"
    _, should, what = said.partition(" should ")
    if not should:
        return f"{name or 'the body'}: {said}"
    given = "" if ", not " in what else f", got {_echo(error['input'])}"
    return f"{name or 'the body'} should {what.replace(' after validation', '')}{given}"


def _echo(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_ECHO else text[:LONGEST_ECHO] + "..."
