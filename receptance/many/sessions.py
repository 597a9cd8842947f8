"""Which conversation a request belongs to, so that all of one reach the replica that remembers it.

    session_key({b"x-session-id": b"ada"}, b"")                       # the same for all requests of that session
    session_key({}, b'{"model": "m", "messages": [...]}')             # the same however the conversation grows

A key is a hash: it may stand in logs, and no word of a conversation is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HEADER = b"x-session-id"
# What a client says of its session, before what it says in the conversation.
FIELDS = ("prompt_cache_key", "user", "state")
# Of a text, or of its token ids.  One that is shorter, and so has another key when it has grown, is soon read again.
BEGINNING = 1024


def session_key(headers: Mapping[bytes, bytes], body: bytes) -> str:
    """What the requests of one conversation have in common; an empty text where nothing tells.

    It is told by the header, else by the first of `FIELDS`, else by the conversation's beginning: the messages up to
    the first one of the user, or the start of the prompt.
    """
    if given := headers.get(HEADER):
        return _hashed(["header", given.decode("latin-1")])
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        # The application says what is wrong with it.
        return ""
    if not isinstance(asked, dict):
        return ""
    for field in FIELDS:
        if isinstance(asked.get(field), str):
            return _hashed([field, asked[field]])
    beginning = _beginning(asked)
    return _hashed([asked.get("model"), beginning]) if beginning else ""


def _beginning(asked: Mapping[str, Any]) -> Any:
    messages, prompt = asked.get("messages"), asked.get("prompt")
    if isinstance(messages, list):
        roles = [said.get("role") if isinstance(said, dict) else None for said in messages]
        return messages[: roles.index("user") + 1] if "user" in roles else messages
    return prompt[:BEGINNING] if isinstance(prompt, str | list) else None


def _hashed(value: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()
