"""What is asked for: the lines of the input file, checked and rendered.

    {"prompt": "Once upon a time", "max_tokens": 50}
    {"messages": [{"role": "user", "content": "Hello"}], "think": "fast", "temperature": 0.5, "id": "a"}

A line has a prompt, which is continued, or messages, which are answered in the form of the model's template.  Beside
`id`, `max_tokens`, `stop` and, with messages, `think`, it may set everything that `Sampling` has.  Empty lines are
skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, ReceptanceError
from ..generation import PRESETS, Sampling, preset_for
from ..language_model import LanguageModel
from ..templates import Message, Template

# Longer than any prompt that makes sense, and small enough for a file without line breaks not to fill the memory.
LONGEST_LINE = 2**24
# The most tokens of a continuation, and of an answer, which may begin with a long thought.
MAX_TOKENS, MAX_TOKENS_OF_ANSWER = 256, 2048
SETTINGS = frozenset(field.name for field in fields(Sampling))


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: str
    content: str


class Line(BaseModel):
    """One line as it was written.  What it holds beside these fields are those of `Sampling`."""

    model_config = ConfigDict(extra="allow", strict=True)
    id: str | int | None = None
    prompt: str | None = None
    messages: list[Turn] | None = Field(default=None, min_length=1)
    think: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line, ready to be computed.

    index       its number in the file, from 0; empty lines are not counted
    prompt      what the model reads
    opening     what the answer to messages begins with; None where there is only a prompt
    noise       the number that, with the seed, decides the noise
    """

    index: int
    id: str | int | None
    prompt: str
    opening: str | None
    stops: tuple[str, ...]
    max_tokens: int
    sampling: Sampling
    noise: int = 0

    def seeded(self, seed: int) -> Request:
        """With the file's seed and noise of its own, unless the line brings its seed."""
        if self.sampling.seed is not None:
            return self
        return replace(self, sampling=replace(self.sampling, seed=seed), noise=self.index)

    def digest(self, context: str) -> str:
        """A name for all that decides the answer: this request, and `context`, a name for the model."""
        about = {**asdict(self), "id": None, "index": None, "context": context}
        about["sampling"]["logit_bias"] = sorted(self.sampling.logit_bias.items())
        return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where a line says nothing.

    template    the form of a conversation
    think       None: what suits the template
    sampling    None: what suits the template and the think mode, or the official runtime's defaults for a prompt
    changes     to that: fields of `Sampling`
    max_tokens  None: MAX_TOKENS for a prompt, MAX_TOKENS_OF_ANSWER for messages
    reads_start whether the model reads a mark of its own before each prompt, so that a prompt may be empty
    """

    template: Template
    think: str | None
    sampling: Sampling | None
    changes: Mapping[str, Any]
    max_tokens: int | None
    stops: tuple[str, ...]
    vocab_size: int
    reads_start: bool

    @classmethod
    def of(cls, lm: LanguageModel, *, has_state: bool, **given: Any) -> Defaults:
        """For the requests to a model; `has_state`: whether it has read something before each of them."""
        return cls(template=lm.chat_template, vocab_size=lm.config.vocab_size, reads_start=not has_state, **given)


def read_requests(path: Path, defaults: Defaults) -> Iterator[Request]:
    """The requests of a file, one at a time.  Raises InputError, with the number of the line, for one that is none."""
    index = 0
    with path.open("rb") as file:
        number = 0
        while text := file.readline(LONGEST_LINE + 1):
            number += 1
            try:
                if len(text) > LONGEST_LINE:
                    raise InputError(f"it is longer than {LONGEST_LINE:,} bytes")
                if number == 1:
                    # Some programs on Windows begin every file with this mark.
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if text.strip():
                    yield request_of(_parse(text), defaults, index)
                    index += 1
            except ReceptanceError as error:
                raise InputError(f"line {number} of {path} cannot be served: {error}") from error


def _parse(text: bytes) -> Line:
    return _checked(lambda: Line.model_validate_json(text))


def line_of(fields: Mapping[str, Any]) -> Line:
    """A line that was not written as one.  Raises InputError for what no line may hold."""
    return _checked(lambda: Line.model_validate(fields))


def _checked(read: Callable[[], Line]) -> Line:
    try:
        line = read()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        # A line is a whole document for the parser.
        message = first["msg"].replace("at line 1 column", "at column")
        raise InputError(f"{place}: {message}" if place else message) from error
    if (line.prompt is None) == (line.messages is None):
        raise InputError("it needs either a prompt or messages")
    if line.think is not None and line.messages is None:
        raise InputError("think goes with messages")
    unknown = sorted((line.model_extra or {}).keys() - SETTINGS)
    if unknown:
        known = ", ".join([*Line.model_fields, *sorted(SETTINGS)])
        raise InputError(f"{unknown[0]!r} is no setting; there are {known}")
    return line


def request_of(line: Line, defaults: Defaults, index: int = 0) -> Request:
    """A line with the defaults in its gaps, rendered.  Raises InputError for what cannot be served."""
    prompt, opening, own_stops, sampling = _rendered(line, defaults)
    if not (prompt or defaults.reads_start):
        raise InputError("the prompt is empty; after a state there must be something to read")
    sampling = _settings(replace(sampling, **defaults.changes), line.model_extra or {})
    sampling.check(defaults.vocab_size)
    stops = defaults.stops if line.stop is None else (line.stop,) if isinstance(line.stop, str) else tuple(line.stop)
    usual = MAX_TOKENS if opening is None else MAX_TOKENS_OF_ANSWER
    if "" in stops:
        raise InputError("a stop cannot be empty; leave it out")
    return Request(
        index=index,
        id=line.id,
        prompt=prompt,
        opening=opening,
        stops=(*own_stops, *stops),
        max_tokens=line.max_tokens or defaults.max_tokens or usual,
        sampling=sampling,
    )


def _rendered(line: Line, defaults: Defaults) -> tuple[str, str | None, Sequence[str], Sampling]:
    """Prompt, opening, stops of the template, and the sampling that suits them."""
    if line.prompt is not None:
        return line.prompt, None, (), defaults.sampling or PRESETS["official"]
    template = defaults.template
    think = next(mode for mode in (line.think, defaults.think, template.default_think) if mode is not None)
    messages = [Message(turn.role, turn.content) for turn in line.messages or ()]
    suits = defaults.sampling or preset_for(template.name, think)
    return template.prompt(messages, think), template.opening(think), template.stops, suits


def _settings(sampling: Sampling, given: Mapping[str, Any]) -> Sampling:
    changes = {name: value for name, value in given.items() if value is not None}
    biases = changes.get("logit_bias")
    if isinstance(biases, dict):
        # The names in a JSON object are texts.
        changes["logit_bias"] = {int(token) if token.isdecimal() else token: bias for token, bias in biases.items()}
    return replace(sampling, **changes)
