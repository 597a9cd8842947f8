"""Responses out of the events of answers: whole ones, and the chunks of a stream.

    bodies = ChatBodies(head=Head.of("chatcmpl", model="m", fingerprint="fp_1"), tokenizer=tokenizer)
    bodies.whole([events])                               # or, as they come:
    bodies.first(0), bodies.chunk(0, event), ..., bodies.last([finished])

All of them are written with `model_dump_json(exclude_unset=True)`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engine.request import Chosen
from ..tokenizers import StreamDecoder, Tokenizer
from .answers import Call, Event, Finished, Text, Thought
from .responses import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    ChunkChoice,
    Completion,
    CompletionDetails,
    Delta,
    FunctionCall,
    PromptDetails,
    TextChoice,
    TextLogprobs,
    TokenLogprob,
    ToolCall,
    ToolCallPiece,
    TopLogprob,
    Usage,
)

# What OpenAI says of a token that is as good as impossible; JSON has no infinity.
IMPOSSIBLE = -9999.0


@dataclass(frozen=True)
class Head:
    """What a response has in common with all chunks of its stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def of(cls, prefix: str, model: str, fingerprint: str) -> Head:
        """A new one; `prefix`: "chatcmpl" or "cmpl"."""
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model, fingerprint)


def usage_of(answers: Sequence[Finished], n: int) -> Usage:
    """Of some prompts, each with `n` answers, which stand side by side."""
    prompts = answers[::n]
    num_prompt, num_tokens = sum(one.num_prompt for one in prompts), sum(one.num_tokens for one in answers)
    return Usage(
        prompt_tokens=num_prompt,
        completion_tokens=num_tokens,
        total_tokens=num_prompt + num_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(one.num_cached for one in prompts)),
        completion_tokens_details=CompletionDetails(reasoning_tokens=sum(one.num_reasoning for one in answers)),
    )


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """What both endpoints need.

    logprobs        whether they were asked for
    include_usage   whether the stream tells the number of tokens in the end
    n               how many answers each prompt has
    """

    head: Head
    tokenizer: Tokenizer
    logprobs: bool = False
    include_usage: bool = False
    n: int = 1

    def _common(self, *, whole: bool = False) -> dict[str, Any]:
        """The fields of a response, or of a chunk, which says that the usage is not known yet."""
        return {**asdict(self.head), **({"usage": None} if self.include_usage and not whole else {})}

    def _usage(self, answers: Iterable[Sequence[Event]]) -> Usage:
        return usage_of([_end(events) for events in answers], self.n)


class ChatBodies(Bodies):
    """Of /v1/chat/completions."""

    def whole(self, answers: Sequence[Sequence[Event]]) -> ChatCompletion:
        """Of answers that have ended."""
        choices = [self._choice(index, events) for index, events in enumerate(answers)]
        common = self._common(whole=True)
        return ChatCompletion(**common, object="chat.completion", choices=choices, usage=self._usage(answers))

    def first(self, index: int) -> ChatChunk:
        """The beginning of an answer."""
        return self._chunk(index, Delta(role="assistant", content=""))

    def chunk(self, index: int, event: Event) -> ChatChunk:
        """More of an answer."""
        match event:
            case Thought(text):
                return self._chunk(index, Delta(reasoning_content=text))
            case Text(text, tokens):
                return self._chunk(index, Delta(content=text), tokens)
            case Call():
                return self._chunk(index, Delta(tool_calls=[ToolCallPiece(index=event.index, **_call(event))]))
            case Finished(reason):
                choice = ChunkChoice(index=index, delta=Delta(), logprobs=None, finish_reason=reason)
                return ChatChunk(**self._common(), object="chat.completion.chunk", choices=[choice])

    def last(self, answers: Sequence[Finished]) -> ChatChunk:
        """The number of tokens, where the stream tells it."""
        usage = usage_of(answers, self.n)
        return ChatChunk(**self._common(whole=True), object="chat.completion.chunk", choices=[], usage=usage)

    def _choice(self, index: int, events: Sequence[Event]) -> ChatChoice:
        text, thought = _joined(events, Text), _joined(events, Thought)
        calls = [ToolCall(**_call(event)) for event in events if isinstance(event, Call)]
        message = ChatMessage(role="assistant", content=None if calls and not text else text, refusal=None)
        # What is not set is not written.
        if thought:
            message.reasoning_content = thought
        if calls:
            message.tool_calls = calls
        logprobs = self._chat_logprobs(_tokens(events))
        return ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=_end(events).reason)

    def _chunk(self, index: int, delta: Delta, tokens: Sequence[Chosen] = ()) -> ChatChunk:
        logprobs = self._chat_logprobs(tokens) if tokens else None
        choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=None)
        return ChatChunk(**self._common(), object="chat.completion.chunk", choices=[choice])

    def _chat_logprobs(self, tokens: Sequence[Chosen]) -> ChatLogprobs | None:
        if not self.logprobs:
            return None
        content = [
            TokenLogprob(
                **self._logprob(chosen.token, chosen.logprob),
                top_logprobs=[TopLogprob(**self._logprob(*likely)) for likely in chosen.top],
            )
            for chosen in tokens
        ]
        return ChatLogprobs(content=content, refusal=None)

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        data = self.tokenizer.token_bytes(token)
        return {"token": token_text(data), "logprob": max(logprob, IMPOSSIBLE), "bytes": list(data)}


@dataclass
class _Offsets:
    """Where in a text its tokens begin, in characters."""

    decoder: StreamDecoder
    length: int = 0

    def push(self, token: int) -> int:
        before = self.length
        self.length += len(self.decoder.push(token))
        return before


@dataclass(frozen=True, kw_only=True)
class TextBodies(Bodies):
    """Of /v1/completions.

    echoes      what the text of each choice begins with; () where that is nothing
    """

    echoes: Sequence[str] = ()
    _offsets: dict[int, _Offsets] = field(init=False, default_factory=dict, repr=False)

    def whole(self, answers: Sequence[Sequence[Event]]) -> Completion:
        """Of continuations that have ended."""
        choices = [
            self._choice(index, self._echo(index) + _joined(events, Text), _tokens(events), _end(events))
            for index, events in enumerate(answers)
        ]
        common = self._common(whole=True)
        return Completion(**common, object="text_completion", choices=choices, usage=self._usage(answers))

    def first(self, index: int) -> Completion | None:
        """The prompt, where it is given back."""
        echo = self._echo(index)
        return self._chunk(self._choice(index, echo)) if echo else None

    def chunk(self, index: int, event: Event) -> Completion:
        """More of a continuation."""
        if isinstance(event, Text):
            return self._chunk(self._choice(index, event.text, event.tokens))
        assert isinstance(event, Finished), "a text that is continued has no thoughts or calls"
        return self._chunk(self._choice(index, "", (), event))

    def last(self, answers: Sequence[Finished]) -> Completion:
        """The number of tokens, where the stream tells it."""
        usage = usage_of(answers, self.n)
        return Completion(**self._common(whole=True), object="text_completion", choices=[], usage=usage)

    def _echo(self, index: int) -> str:
        return self.echoes[index] if self.echoes else ""

    def _chunk(self, choice: TextChoice) -> Completion:
        return Completion(**self._common(), object="text_completion", choices=[choice])

    def _choice(
        self, index: int, text: str, tokens: Sequence[Chosen] = (), end: Finished | None = None
    ) -> TextChoice:
        reason = None if end is None else end.reason
        assert reason != "tool_calls", "a text that is continued has no calls"
        logprobs = self._text_logprobs(index, tokens) if self.logprobs and (tokens or end) else None
        return TextChoice(index=index, text=text, logprobs=logprobs, finish_reason=reason)

    def _text_logprobs(self, index: int, tokens: Sequence[Chosen]) -> TextLogprobs:
        offsets = self._offsets.setdefault(index, _Offsets(self.tokenizer.stream()))
        return TextLogprobs(
            tokens=[self._token(chosen.token) for chosen in tokens],
            token_logprobs=[max(chosen.logprob, IMPOSSIBLE) for chosen in tokens],
            top_logprobs=[self._likely(chosen) for chosen in tokens],
            text_offset=[offsets.push(chosen.token) for chosen in tokens],
        )

    def _likely(self, chosen: Chosen) -> dict[str, float]:
        """The likeliest ones, and the chosen one."""
        both = (*chosen.top, (chosen.token, chosen.logprob))
        return {self._token(token): max(logprob, IMPOSSIBLE) for token, logprob in both}

    def _token(self, token: int) -> str:
        return token_text(self.tokenizer.token_bytes(token), "bytes:")


def token_text(data: bytes, mark: str = "") -> str:
    """A token as OpenAI writes it: its text, or, where it has no whole characters, its bytes behind a mark."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return mark + "".join(f"\\x{byte:02x}" for byte in data)


def _joined(events: Iterable[Event], kind: type[Text] | type[Thought]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def _tokens(events: Iterable[Event]) -> list[Chosen]:
    return [token for event in events if isinstance(event, Text) for token in event.tokens]


def _end(events: Sequence[Event]) -> Finished:
    finished = events[-1]
    assert isinstance(finished, Finished), "the answer has ended"
    return finished


def _call(event: Call) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": "function",
        "function": FunctionCall(name=event.name, arguments=event.arguments),
    }
