"""Functions that a model may call, written as one line each.

    signature({"name": "get_weather", "parameters": {"type": "object", "properties": {...}, "required": [...]}})
    # get_weather(location: string, unit?: "celsius" | "fahrenheit")

The form is that of RWKV-LM `RWKV-v7/RWKV7-G1x-templates.txt`; what its examples leave open (arrays, objects) is written
as TypeScript writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# A schema from outside may be nested without end; what lies deeper says only "object" or "any".
DEEPEST = 8
_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$-]*")


def signature(function: Mapping[str, Any]) -> str:
    """`name(parameter: type, optional?: type)` of a function in OpenAI's form."""
    return f"{function['name']}({_fields(function.get('parameters') or {}, 0)})"


def type_name(schema: Any, depth: int = 0) -> str:
    """The type that a JSON schema describes; "any" where it does not say."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "any"
    if "const" in schema:
        return _literal(schema["const"])
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return " | ".join(_literal(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return " | ".join(type_name(choice, depth + 1) for choice in schema[key])
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if isinstance(kind, list):
        return " | ".join(type_name({**schema, "type": each}, depth + 1) for each in kind) or "any"
    if kind == "array" and "items" in schema:
        item = type_name(schema["items"], depth + 1)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if kind == "object" and schema.get("properties") and depth < DEEPEST:
        return "{" + _fields(schema, depth + 1) + "}"
    return str(kind)


def _fields(schema: Mapping[str, Any], depth: int) -> str:
    properties = schema.get("properties") or {}
    required = schema.get("required") or []
    return ", ".join(
        f"{_field_name(str(name))}{'' if name in required else '?'}: {type_name(value, depth)}"
        for name, value in properties.items()
    )


def _field_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else _literal(name)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
