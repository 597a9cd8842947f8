"""Who may ask, and how much: keys out of a file, compared in constant time, each with limits of its own.

    [ada]
    key = "sk-..."                    # or sha256 = "...", so that the file holds no key
    requests_per_minute = 60
    tokens_per_minute = 100_000       # prompts and answers together
    requests_at_once = 8

Without a file everybody may, as much as there is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import tomllib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ..errors import InputError
from .refusals import refusal_of

MINUTE = 60.0
SHORTEST_KEY = 8
DIGEST = re.compile("[0-9a-f]{64}")


class DeniedError(Exception):
    """No key, or a wrong one."""


class TooManyError(Exception):
    """A limit is reached; `retry_after` seconds from now it is not."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Allowance(BaseModel):
    """What one key may do; None: as much as there is."""

    model_config = ConfigDict(extra="forbid")
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    requests_at_once: int | None = Field(default=None, ge=1)


class KeyEntry(Allowance):
    """One entry of the file."""

    key: str | None = None
    sha256: str | None = None

    @field_validator("key", "sha256", mode="before")
    @classmethod
    def _is_one(cls, value: Any, about: ValidationInfo) -> Any:
        """Here, as pydantic's own complaints repeat what was given."""
        if about.field_name == "key" and not (isinstance(value, str) and len(value) >= SHORTEST_KEY):
            raise ValueError(f"it must be a text of at least {SHORTEST_KEY} characters")
        if about.field_name == "sha256" and not (isinstance(value, str) and DIGEST.fullmatch(value)):
            raise ValueError("it must be a text of 64 digits, 0 to 9 and a to f, as sha256sum prints it")
        return value

    @model_validator(mode="after")
    def _has_one(self) -> KeyEntry:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self

    @property
    def digest(self) -> str:
        """Of the key."""
        return self.sha256 or hashlib.sha256((self.key or "").encode()).hexdigest()


@dataclass
class Caller:
    """Somebody who asks, and what they did in the last minute."""

    name: str
    allowance: Allowance
    num_running: int = 0
    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While one request of theirs is served.  Raises TooManyError where that is one too many."""
        self._check(time.monotonic())
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1

    def used(self, num_tokens: int) -> None:
        """So many tokens were read and chosen for them."""
        self.tokens.append((time.monotonic(), num_tokens))

    def _check(self, now: float) -> None:
        while self.requests and self.requests[0] <= now - MINUTE:
            self.requests.popleft()
        while self.tokens and self.tokens[0][0] <= now - MINUTE:
            self.tokens.popleft()
        allowed = self.allowance
        if allowed.requests_at_once is not None and self.num_running >= allowed.requests_at_once:
            raise TooManyError(f"{allowed.requests_at_once} requests of this key are being served; wait for one", 1.0)
        if allowed.requests_per_minute is not None and len(self.requests) >= allowed.requests_per_minute:
            wait = self.requests[0] + MINUTE - now
            raise TooManyError(f"this key may ask {allowed.requests_per_minute} times a minute; wait", wait)
        num_tokens = sum(number for _, number in self.tokens)
        if allowed.tokens_per_minute is not None and num_tokens >= allowed.tokens_per_minute:
            wait = self.tokens[0][0] + MINUTE - now
            raise TooManyError(f"this key may use {allowed.tokens_per_minute:,} tokens a minute; wait", wait)
        self.requests.append(now)


class Access:
    """The keys of a server; without any, everybody is let in."""

    def __init__(self, entries: dict[str, KeyEntry] | None = None) -> None:
        entries = entries or {}
        self._callers = {
            name: (entry.digest.encode(), Caller(name, Allowance(**entry.model_dump(exclude={"key", "sha256"}))))
            for name, entry in entries.items()
        }
        self._everybody = Caller("", Allowance())

    @property
    def has_keys(self) -> bool:
        """Whether one is needed."""
        return bool(self._callers)

    def caller(self, authorization: str | None) -> Caller:
        """Who sends this header.  Raises DeniedError where nobody does who is known."""
        if not self._callers:
            return self._everybody
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise DeniedError("this server needs a key; send it as: Authorization: Bearer KEY")
        # A header is bytes, which the framework reads as Latin-1.
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).hexdigest().encode()
        found = None
        # All of them, always: the time tells nothing.
        for known, caller in self._callers.values():
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise DeniedError("this key is not known here; check it")
        return found


def read_keys(path: Path) -> Access:
    """The keys of a TOML file.  Raises InputError where it cannot be read or says what makes no sense."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    entries = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {name} is no entry; write [NAME], and key = ... and limits below it")
        try:
            entries[name] = KeyEntry.model_validate(table)
        except ValidationError as error:
            said = refusal_of(error.errors(), table)
            raise InputError(f"{path}, [{name}]: {said.message}") from error
    if not entries:
        raise InputError(f"{path} holds no keys; each is a table with a name, as [ada], and a key")
    if len({entry.digest for entry in entries.values()}) < len(entries):
        raise InputError(f"two entries of {path} have the same key; give each its own")
    return Access(entries)
