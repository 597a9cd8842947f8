"""From a request to what the engine reads, and how it is to answer.

    defaults = Defaults.of(lm)
    rendered = render_chat(request, defaults)            # rendered.tokens, .marks, .sampling, .stops, ...
    [rendered] = render_prompts(request, defaults)

The texts of a conversation are the template's; nothing of it is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from ..batch.requests import MAX_TOKENS, MAX_TOKENS_OF_ANSWER
from ..errors import InputError
from ..generation import PRESETS, Moment, Sampling, preset_for
from ..generation.completion import prompt_tokens
from ..generation.presets import sampling_of
from ..language_model import LanguageModel
from ..state import State
from ..templates import Message, Template, ToolCall, ToolForm
from ..tokenizers import Tokenizer
from .forms import answer_grammar, offered_tools, stops_of, text_grammar, tool_form
from .grammars import Budget, Grammar, is_half_open, opens_thought
from .marks import marks_of, shared_places
from .parts import AssistantMessage, CallOfAssistant, joined
from .parts import Message as Sent
from .schemas import ChatRequest, CompletionRequest, GenerationRequest

# The think modes that an effort may mean, the best one first; "off" is always there.
EFFORTS = {
    "none": ("off",),
    "minimal": ("fast", "off"),
    "low": ("a bit", "on", "off"),
    "medium": ("some", "on", "off"),
    "high": ("a lot", "on", "off"),
    "xhigh": ("a lot", "on", "off"),
    "max": ("a lot", "on", "off"),
}
SETTINGS = [field.name for field in fields(Sampling) if field.name in GenerationRequest.model_fields]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where a request says nothing, and what a server allows.

    think               None: what suits the template
    sampling            None: what suits the template and the think mode, or the official runtime's for a text
    most_prompt_tokens  that a prompt may have
    most_new_tokens     that an answer may have
    """

    tokenizer: Tokenizer
    template: Template
    vocab_size: int
    think: str | None = None
    sampling: Sampling | None = None
    most_prompt_tokens: int = 2**17
    most_new_tokens: int = 2**14

    @classmethod
    def of(cls, lm: LanguageModel, **given: Any) -> Defaults:
        """For requests to a model.  Raises InputError where its tokenizer is not known."""
        return cls(tokenizer=lm.known_tokenizer(), template=lm.chat_template, vocab_size=lm.config.vocab_size, **given)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One prompt, ready to be read.

    text            all that the model has read before its answer, also what `start` has read
    tokens          what is left to be read; `marks` are places in it that other prompts may share
    start           what was read before; None: nothing; `num_before`: of so many tokens
    messages        the conversation, as later prompts repeat it; () of a text
    opening         what of the answer the prompt ends with; None where a text is continued
    template        of a conversation; None where a text is continued
    has_tools       whether the answer may hold calls of functions
    num_logprobs    None: no logprobs; else how many likeliest tokens beside the chosen one's
    echo            the text that is given back before the answer
    grammar         the form of the answer; None: any
    budget          of its thought; None: none
    """

    text: str
    tokens: Sequence[int]
    marks: Sequence[int] = ()
    start: State | None = None
    num_before: int = 0
    messages: tuple[Message, ...] = ()
    opening: str | None = None
    template: Template | None = None
    think: str = "off"
    has_tools: bool = False
    stops: tuple[str, ...]
    sampling: Sampling
    max_tokens: int
    num_logprobs: int | None
    echo: str = ""
    grammar: Grammar | None = None
    budget: Budget | None = None


# ---- conversations


def render_chat(request: ChatRequest, defaults: Defaults, before: Moment | None = None) -> Rendered:
    """A conversation, which goes on after `before`.  Raises InputError for what cannot be said or served."""
    before = before or Moment()
    template = _template(request, defaults.template)
    think = think_of(request, template, defaults.think)
    tools = [tool.model_dump(exclude_none=True) for tool in offered_tools(request)]
    messages = (*before.messages, *as_messages(request.messages, tool_form(template)))
    write = partial(template.prompt, think=think, tools=tools, call=request.forces_call)
    text, opening = write(messages), template.opening(think, tools, request.forces_call)
    start, unread = _unread(text, before)
    tokens = _checked(prompt_tokens(defaults.tokenizer, unread, start), defaults)
    places = shared_places(messages, write) if start is None and request.cache is not False else []
    grammar = answer_grammar(request, template, opening)
    return Rendered(
        text=text,
        tokens=tokens,
        marks=marks_of(text, tokens, places, defaults.tokenizer),
        start=start,
        num_before=0 if start is None else before.num_tokens,
        messages=(*messages[:-1], template.as_sent(messages[-1], think)),
        opening=opening,
        template=template,
        think=think,
        has_tools=bool(tools),
        stops=stops_of(request, template.stops, grammar.forms if grammar else ()),
        sampling=_sampling(request, defaults.sampling or preset_for(template.name, think), defaults, grammar),
        max_tokens=_max_tokens(request.max_completion_tokens or request.max_tokens, MAX_TOKENS_OF_ANSWER, defaults),
        num_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        grammar=grammar,
        budget=_budget(request, opening),
    )


def _unread(text: str, before: Moment) -> tuple[State | None, str]:
    """The state to go on from, and the rest of a text; all of it where that does not begin as what was read."""
    if text.startswith(before.text):
        return before.state, before.unread + text[len(before.text) :]
    if not before.messages:
        raise InputError("the stored state has read a text and no conversation; go on with it at /v1/completions")
    return None, text


def think_of(request: ChatRequest, template: Template, usual: str | None) -> str:
    """The think mode of a request.  Raises InputError for one that the template lacks."""
    if request.think is None and request.reasoning_effort is not None:
        return next(mode for mode in EFFORTS[request.reasoning_effort] if mode in template.think_modes)
    think = request.think or usual or template.default_think
    # It says which ones there are.
    template.opening(think)
    return think


def as_messages(messages: Sequence[Sent], form: ToolForm) -> list[Message]:
    """Messages as templates know them.  Raises InputError for calls without proper arguments."""
    return [_as_message(sent, form, number) for number, sent in enumerate(messages)]


def _as_message(sent: Sent, form: ToolForm, number: int) -> Message:
    content = joined(sent.content)
    if isinstance(sent, AssistantMessage) and sent.tool_calls:
        calls = form.call([_call(call, number) for call in sent.tool_calls])
        content = f"{content}\n{calls}" if content.strip() else calls
    return Message("system" if sent.role == "developer" else sent.role, content)


def _call(call: CallOfAssistant, number: int) -> ToolCall:
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InputError(
            f"messages.{number}: the arguments of the call {call.id!r} are no JSON object; "
            f'repeat them as they came, for instance "{{}}"'
        )
    return ToolCall(call.function.name, arguments)


def _template(request: ChatRequest, template: Template) -> Template:
    """The template, or that for tools where functions are spoken of."""
    called = any(sent.role == "tool" or (sent.role == "assistant" and sent.tool_calls) for sent in request.messages)
    return template.for_tools() if called or offered_tools(request) else template


def _budget(request: ChatRequest, opening: str) -> Budget | None:
    if request.think_budget is None or not opens_thought(opening):
        return None
    return Budget(request.think_budget, is_half_open(opening))


# ---- texts


def render_prompts(request: CompletionRequest, defaults: Defaults, before: Moment | None = None) -> list[Rendered]:
    """Texts to be continued, each after `before`.  Raises InputError for what cannot be served."""
    before = before or Moment()
    grammar = text_grammar(request)
    sampling = _sampling(request, defaults.sampling or PRESETS["official"], defaults, grammar)
    rendered = []
    for prompt in request.prompt:
        text = prompt if isinstance(prompt, str) else defaults.tokenizer.decode(prompt)
        rendered.append(
            Rendered(
                text=before.text + text,
                tokens=_checked(_tokens(prompt, defaults, before), defaults),
                start=before.state,
                num_before=before.num_tokens,
                stops=tuple(request.stop or ()),
                sampling=sampling,
                max_tokens=_max_tokens(request.max_tokens, MAX_TOKENS, defaults),
                num_logprobs=request.logprobs,
                echo=text if request.echo else "",
                grammar=grammar,
            )
        )
    return rendered


def _tokens(prompt: str | list[int], defaults: Defaults, before: Moment) -> list[int]:
    if isinstance(prompt, str):
        tokens = prompt_tokens(defaults.tokenizer, before.unread + prompt, before.state)
    else:
        tokens = defaults.tokenizer.encode(before.unread) + prompt
    if not tokens:
        raise InputError("the prompt is empty; after a state there must be something to read")
    if max(tokens) >= defaults.vocab_size:
        last = defaults.vocab_size - 1
        raise InputError(f"the prompt has token {max(tokens)}, and the vocabulary ends at {last}; name another")
    return tokens


# ---- both


def _checked(tokens: list[int], defaults: Defaults) -> list[int]:
    if len(tokens) > defaults.most_prompt_tokens:
        raise InputError(
            f"the prompt has {len(tokens):,} tokens and this server reads at most {defaults.most_prompt_tokens:,}; "
            "shorten it"
        )
    return tokens


def _max_tokens(asked: int | None, usual: int, defaults: Defaults) -> int:
    if asked is None:
        return min(usual, defaults.most_new_tokens)
    if asked > defaults.most_new_tokens:
        most = defaults.most_new_tokens
        raise InputError(f"max_tokens is {asked:,} and this server gives at most {most:,}; ask for fewer")
    return asked


def _sampling(request: GenerationRequest, usual: Sampling, defaults: Defaults, grammar: Grammar | None) -> Sampling:
    given: Mapping[str, Any] = {name: getattr(request, name) for name in SETTINGS if getattr(request, name) is not None}
    if request.logit_bias:
        given = {**given, "logit_bias": {int(token): bias for token, bias in request.logit_bias.items()}}
    sampling = sampling_of(usual, given)
    if grammar is not None:
        # Where a grammar is complete nothing else is left.
        banned = set(sampling.banned) - {defaults.tokenizer.end_of_text}
        sampling = replace(sampling, banned=tuple(banned))
    sampling.check(defaults.vocab_size)
    return sampling

