"""What comes out: one JSON object a line, in the order of the requests, each as soon as its batch is done.

    {"index": 0, "id": null, "text": "...", "finish_reason": "stop", "num_prompt_tokens": 5, "num_tokens": 20, ...}

Every line has a digest of the request that it answers, so that a file can be taken up again, and a file that answers
something else is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import InputError
from ..templates import split_reply
from .requests import LONGEST_LINE


class Result(BaseModel):
    """The answer to one request.

    index, id       of the request
    text            without the stop; of messages, without the thought
    thought         of messages: what stood between <think> and </think>
    finish_reason   "stop": a stop or the end of the text; "length": `max_tokens`; "error"
    seed, request   what decides the noise: `lm.generate(prompt, seed=seed, request=request)` draws the same
    digest          a name for all that decided the answer
    error           one sentence where the model could not answer
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    index: int
    id: str | int | None = None
    text: str = ""
    thought: str | None = None
    finish_reason: str
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    seed: int
    request: int
    digest: str
    error: str | None = None

    def to_line(self) -> bytes:
        """As the file holds it; what does not apply is left out."""
        without = {name for name in ("id", "thought", "error") if getattr(self, name) is None}
        return self.model_dump_json(exclude=without).encode() + b"\n"


class Earlier(NamedTuple):
    """A result that the file holds already, and where its line ends."""

    result: Result
    end: int


def read_results(path: Path) -> Iterator[Earlier]:
    """The whole lines of a file of results; nothing where there is no file.

    Half a line at the end, which a run that was killed may leave, is passed over.  Raises InputError for a file of
    something else.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        number = end = 0
        while text := file.readline(4 * LONGEST_LINE):
            end += len(text)
            if not text.endswith(b"\n") and _begins_as_ours(text, number):
                return
            try:
                result = Result.model_validate_json(text)
            except ValidationError as error:
                raise InputError(f"{path} holds something else than results; name another file") from error
            if result.index != number:
                raise InputError(f"line {number + 1} of {path} is the result of another request; name another file")
            yield Earlier(result, end)
            number += 1


def answer_parts(text: str, opening: str | None) -> dict[str, str]:
    """`text` as it is; of an answer to messages (`Request.opening`), the `thought` apart."""
    if opening is None:
        return {"text": text}
    thought, answer = split_reply(text, opening)
    return {"text": answer, "thought": thought}


def _begins_as_ours(text: bytes, index: int) -> bool:
    """A line that is cut off must still be one of ours: nobody's notes are to be deleted."""
    start = b'{"index":%d,' % index
    return text.startswith(start) or start.startswith(text)
