"""Text in, text out: many prompts as one batch, or one prompt whose text streams.

    [first, second] = complete(model, tokenizer, [Prompt("def f("), Prompt("class ", max_tokens=50)])
    for piece in Stream(model, tokenizer, Prompt("def f(")):
        print(piece, end="", flush=True)

A row of a batch is what it would be alone: its noise comes from its seed, its request's number and the position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from ..models import RWKV
from ..state import State
from ..tokenizers import Tokenizer
from .continuation import Continuation, FinishReason
from .decoding import Decoding
from .penalties import uncounted_tokens
from .sampling import Choice
from .settings import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to be continued, and how.

    max_tokens  the most that are chosen
    stops       texts that end it and do not belong to it
    request     with the seed it decides the noise
    """

    text: str
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 256
    stops: tuple[str, ...] = ()
    request: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, by the model itself, before penalties and filters.

    top     the likeliest tokens at this place and their logarithms, as many as were asked for
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What follows a prompt.

    finish_reason   "stop": a stop or the end of the text; "length": `max_tokens`; "cancelled": ended by the caller;
                    None: of a stream that goes on
    tokens          all that were chosen, those of the stop too
    seed            with it the same request gives the same text again
    logprobs        one a token, if asked for
    """

    text: str
    finish_reason: FinishReason | None
    tokens: tuple[int, ...]
    num_prompt_tokens: int
    seed: int
    logprobs: tuple[TokenLogprob, ...] = field(default=())


def logprobs_of(choice: Choice) -> list[TokenLogprob]:
    """What a step tells of each row, of which logprobs were asked for."""
    assert choice.logprobs is not None
    tokens, logprobs = choice.tokens.tolist(), choice.logprobs.tolist()
    ids, values = ([[]] * len(tokens),) * 2 if choice.top is None else (part.tolist() for part in choice.top)
    tops = (tuple(zip(*top, strict=True)) for top in zip(ids, values, strict=True))
    return [TokenLogprob(*told) for told in zip(tokens, logprobs, tops, strict=True)]


def prompt_tokens(tokenizer: Tokenizer, text: str, state: State | None = None) -> list[int]:
    """The tokens of a prompt.  A new text begins with `end_of_text`, as the official evaluations do.

    Raises InputError for what is no text.
    """
    if not isinstance(text, str):
        raise InputError(f"a prompt must be a text, got {type(text).__name__}; tokens are for `Decoding`")
    start = [tokenizer.end_of_text] if state is None else []
    return start + tokenizer.encode(text)


def complete(
    model: RWKV,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    num_logprobs: int | None = None,
    state: State | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Continue every prompt, all as one batch.

    num_logprobs    None: no logprobs; else how many likeliest tokens beside the chosen one's
    state           what was read before the prompts, one row for all or one for each
    on_step         is called with the number of rows that got a token

    Raises InputError for settings or prompts that cannot be served, StateError for another model's state.
    """
    rows = [Continuation(tokenizer, prompt.stops, prompt.max_tokens) for prompt in prompts]
    logprobs: list[list[TokenLogprob]] = [[] for _ in prompts]
    tokens, decoding = _begin(model, tokenizer, prompts, state)
    seeds = list(decoding.sampler.seeds)
    while decoding.rows:
        choice = decoding.step(num_logprobs)
        for row, token in zip(decoding.rows, choice.tokens.tolist(), strict=True):
            rows[row].push(token)
        if num_logprobs is not None:
            for row, told in zip(decoding.rows, logprobs_of(choice), strict=True):
                logprobs[row].append(told)
        if on_step is not None:
            on_step(len(decoding.rows))
        decoding.keep([place for place, row in enumerate(decoding.rows) if rows[row].finish_reason is None])
    return [
        Completion(row.text, row.finish_reason, tuple(row.tokens), len(read), seed, tuple(known))
        for row, read, seed, known in zip(rows, tokens, seeds, logprobs, strict=True)
    ]


def _begin(
    model: RWKV, tokenizer: Tokenizer, prompts: Sequence[Prompt], state: State | None
) -> tuple[list[list[int]], Decoding]:
    """The prompts' tokens, and their decoding."""
    tokens = [prompt_tokens(tokenizer, prompt.text, state) for prompt in prompts]
    settings, requests = [prompt.sampling for prompt in prompts], [prompt.request for prompt in prompts]
    return tokens, Decoding(model, tokens, settings, requests, state, uncounted_tokens(tokenizer))


class Stream:
    """One continuation as it comes: an iterator of pieces of text, and `completion` once it has ended.

    `close()` ends it early; the text so far is then the completion's.
    """

    def __init__(
        self,
        model: RWKV,
        tokenizer: Tokenizer,
        prompt: Prompt,
        *,
        state: State | None = None,
    ) -> None:
        """Reads the prompt.  Raises what `complete` raises."""
        self._row = Continuation(tokenizer, prompt.stops, prompt.max_tokens)
        [tokens], self._decoding = _begin(model, tokenizer, [prompt], state)
        self._num_prompt_tokens = len(tokens)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self._row.finish_reason is None:
            [token] = self._decoding.step().tokens.tolist()
            if piece := self._row.push(token):
                return piece
        raise StopIteration

    def close(self) -> None:
        """Ends it here."""
        self._row.finish()

    @property
    def completion(self) -> Completion:
        """What came so far."""
        row = self._row
        return Completion(
            row.text,
            row.finish_reason,
            tuple(row.tokens),
            self._num_prompt_tokens,
            self._decoding.sampler.seeds[0],
        )
