"""One text of `receptance generate`: the model is loaded, the answer shown as it comes, the figures told at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from ..display import harmless, write
from .guard import STOPPED
from .options import GUESS, Dtype, Quant
from .terminal import console, loading

if TYPE_CHECKING:
    from ..batch import Request
    from ..generation import Completion, Sampling, Stream
    from ..language_model import LanguageModel
    from ..state import State
    from ..templates import ReplySplitter

Kind = Literal["echo", "thought", "answer"]
REASONS = {
    "stop": "it came to an end",
    "length": "--max-tokens ended it",
    "cancelled": "you ended it",
}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the options say about every text; None and empty were not given."""

    model: str
    dtype: Dtype | None
    device: str | None
    quant: Quant | None
    adapter: Path | None
    tokenizer: str | None
    template: str | None
    state: Path | None
    preset: str | None
    settings: Mapping[str, Any]
    max_tokens: int | None
    stops: tuple[str, ...]
    think: str | None

    def load(self) -> tuple[LanguageModel, State | None]:
        """The model, and the state to begin with.  What can be refused at once is refused before anything is read."""
        from ..generation import Sampling
        from ..language_model import load

        replace(self.sampling or Sampling(), **self.settings)
        with loading(self.model, self.quant):
            lm = load(
                self.model,
                dtype=self.dtype.torch if self.dtype else None,
                device=self.device,
                tokenizer=self.tokenizer,
                template=self.template,
                quant=self.quant,
                adapter=self.adapter,
            )
            return lm, None if self.state is None else lm.load_state(self.state)

    @property
    def sampling(self) -> Sampling | None:
        """The preset; None: what suits."""
        from ..generation.presets import sampling_of

        return None if self.preset is None else sampling_of(self.preset, {})

    def request(self, lm: LanguageModel, state: State | None, line: Mapping[str, Any]) -> Request:
        """A line, as a file of requests may hold it, made ready for the model."""
        from ..batch import Defaults, Line, request_of

        defaults = Defaults.of(
            lm,
            has_state=state is not None,
            sampling=self.sampling,
            changes=self.settings,
            max_tokens=self.max_tokens,
            stops=self.stops,
            think=self.think,
        )
        return request_of(Line.model_validate(line), defaults)


def answer(wish: Wish, line: Mapping[str, Any], echo: str, as_json: bool, logprobs: int | None) -> None:
    """Show what follows a prompt or answers messages: `line` has one of them.

    echo        the prompt, where the text is to be shown as its continuation
    logprobs    of how many of the likeliest tokens to tell
    """
    lm, state = wish.load()
    request = wish.request(lm, state, line)
    if request.opening is not None:
        tell_guess(lm)
    options: dict[str, Any] = {"sampling": request.sampling, "stop": request.stops, "state": state}
    clock = time.perf_counter()
    if as_json:
        completion = lm.generate(request.prompt, request.max_tokens, logprobs=logprobs, **options)
        values = _values(lm, completion, request.opening, time.perf_counter() - clock)
        # A terminal would obey some letters; as escapes they mean the same.
        print(json.dumps(values, ensure_ascii=sys.stdout.isatty()))
        return
    stream = lm.stream(request.prompt, request.max_tokens, **options)
    reading, clock = time.perf_counter() - clock, time.perf_counter()
    page = Page()
    page.write(echo, "echo")
    ended = _show(page, stream, request.opening)
    page.close()
    _tell(stream.completion, reading, time.perf_counter() - clock)
    if not ended:
        raise typer.Exit(STOPPED)


def tell_guess(lm: LanguageModel) -> None:
    """Say which template messages are written in, where nothing tells which is the model's."""
    if lm.template is None:
        print(f"template {lm.chat_template.name} ({GUESS})", file=sys.stderr)


def _show(page: Page, stream: Stream, opening: str | None) -> bool:
    """Write the text as it comes.  Returns False where Ctrl-C ended it; what was held back until then is shown too."""
    from ..templates import ReplySplitter

    splitter = None if opening is None else ReplySplitter(opening)
    shown = 0
    try:
        for text in stream:
            shown += len(text)
            page.write_reply(text, splitter)
        return True
    except KeyboardInterrupt:
        stream.close()
        return False
    finally:
        page.write_reply(stream.completion.text[shown:], splitter)
        if splitter is not None:
            for piece in splitter.finish():
                page.write(piece.text, piece.kind)


class Page:
    """Where a text goes.

    On a terminal a thought is dim, and nothing that the model says can do anything but be read.  Into a pipe goes the
    answer alone, as it is, and the thought to stderr.
    """

    def __init__(self) -> None:
        self._screen = console() if sys.stdout.isatty() else None
        self._last: Kind | None = None

    def write(self, text: str, kind: Kind) -> None:
        """Shows some more text, at once."""
        if not text:
            return
        after_thought = self._last == "thought" and kind == "answer"
        self._last = kind
        if self._screen is not None:
            write(self._screen, ("\n\n" if after_thought else ""))
            write(self._screen, text, "" if kind == "answer" else "dim")
        elif kind == "answer":
            if after_thought:
                print(file=sys.stderr)
            print(text, end="", flush=True)
        elif kind == "thought":
            print(harmless(text), end="", file=sys.stderr, flush=True)

    def write_reply(self, text: str, splitter: ReplySplitter | None) -> None:
        """Shows some more of a reply, whose thought is told apart by the splitter, where there is one."""
        if splitter is None:
            self.write(text, "answer")
            return
        for piece in splitter.push(text):
            self.write(piece.text, piece.kind)

    def close(self) -> None:
        """The cursor goes to the next line; into a pipe goes nothing more."""
        if self._screen is not None:
            self._screen.out("")
        elif self._last == "thought" or _is_one_place():
            print(file=sys.stderr)


def _is_one_place() -> bool:
    """Whether stdout and stderr lead to the same place, as after `2>&1`."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):
        return False


def _tell(completion: Completion, reading: float, seconds: float) -> None:
    """The figures, for people: scripts ask for --json."""
    from rich.console import Console

    num_tokens = len(completion.tokens)
    words = (
        f"{completion.num_prompt_tokens:,} tokens read in {reading:.2f} s; "
        f"{num_tokens:,} generated, {_speed(num_tokens, seconds):,.1f} tokens/s; "
        f"{REASONS[completion.finish_reason or 'cancelled']}; --seed {completion.seed} gives it again"
    )
    Console(stderr=True).out(words, style="dim", highlight=False)


def _values(lm: LanguageModel, completion: Completion, opening: str | None, seconds: float) -> dict[str, Any]:
    from ..batch import answer_parts

    values: dict[str, Any] = {
        "model": lm.name,
        **answer_parts(completion.text, opening),
        "finish_reason": completion.finish_reason,
        "num_prompt_tokens": completion.num_prompt_tokens,
        "num_tokens": len(completion.tokens),
        "tokens": list(completion.tokens),
        "seed": completion.seed,
        "seconds": seconds,
        "tokens_per_second": _speed(len(completion.tokens), seconds),
    }
    if completion.logprobs:
        values["logprobs"] = [
            {
                "token": told.token,
                "logprob": told.logprob,
                "top": [{"token": token, "logprob": logprob} for token, logprob in told.top],
            }
            for told in completion.logprobs
        ]
    return values


def _speed(num_tokens: int, seconds: float) -> float:
    return num_tokens / seconds if seconds > 0 else 0.0
