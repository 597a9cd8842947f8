"""What comes in: requests in OpenAI's shape, with the fields that only this server has, checked and bounded.

    request = ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})

A field that does not exist is refused.  Accepted are fields that official clients send though they change nothing here.
`refusals` makes one sentence out of what pydantic says about a request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from ..generation.noise import LIMIT
from .parts import (
    MOST_MESSAGES,
    MOST_TOOLS,
    Identifier,
    Message,
    Metadata,
    Name,
    NamedTool,
    ResponseFormat,
    Shape,
    Text,
    TextFormat,
    Tool,
)

# Far more than a server allows by itself: its own limits come with a sentence that names them.
MOST_PROMPT_TOKENS = MOST_NEW_TOKENS = 2**20
MOST_PROMPTS = 64
# Each of them occupies one place in every step.
MOST_CHOICES = 16
# Every stop is looked for in every answer; a longer one holds back more text than a reader would wait for.
MOST_STOPS, LONGEST_STOP = 16, 256
MOST_BIASES = 1024
# OpenAI's own.
MOST_TOP_LOGPROBS = 20
# A grammar is compiled before anything else happens.
LONGEST_GRAMMAR = 2**16
LONGEST_WAIT = 3600.0

StateName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
GrammarText = Annotated[str, Field(min_length=1, max_length=LONGEST_GRAMMAR)]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,7}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = Annotated[list[Stop], Field(max_length=MOST_STOPS)]
TokenPrompt = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MOST_PROMPT_TOKENS)]
TextPrompts = Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
TokenPrompts = Annotated[list[TokenPrompt], Field(min_length=1, max_length=MOST_PROMPTS)]
AnyPrompts = Text | TextPrompts | TokenPrompt | TokenPrompts | None


def _several(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("it must be a text or a list of texts")
    return [value] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """One prompt or several, as several; none is an empty text."""
    if value is None or isinstance(value, str):
        return [value or ""]
    kinds = {type(item) for item in value} if isinstance(value, list) else set()
    if len(kinds) != 1 or not kinds <= {str, int, list}:
        raise ValueError("it must be a text, a list of texts, a list of token ids, or a list of such lists")
    return [value] if kinds == {int} else value


def _kind(prompt: Any) -> str:
    return "text" if isinstance(prompt, str) else "tokens"


Prompt = Annotated[Annotated[Text, Tag("text")] | Annotated[TokenPrompt, Tag("tokens")], Discriminator(_kind)]
Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MOST_PROMPTS)]


class StreamOptions(Shape):
    """What a stream contains besides the answer."""

    include_usage: bool | None = Field(None, description="A last chunk tells the number of tokens.")
    include_obfuscation: bool | None = Field(None, description="Changes nothing.")


class GenerationRequest(Shape):
    """What both endpoints take."""

    model: Name = Field(description="A name that /v1/models lists.")
    stream: bool | None = Field(None, description="Send the answer in pieces, as server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_NEW_TOKENS, description="The most tokens of an answer.")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="How many answers.")
    stop: Annotated[Stops, BeforeValidator(_several, json_schema_input_type=Stop | Stops)] | None = Field(
        None, description="Texts that end the answer and are no part of it."
    )
    seed: int | None = Field(None, ge=0, lt=LIMIT, description="The same seed gives the same answer.")
    temperature: float | None = Field(None, ge=0, le=2, description="0: always the likeliest token.")
    top_p: float | None = Field(None, ge=0, le=1, description="Only the likeliest tokens of this probability together.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Against tokens that occurred.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="The same for each occurrence.")
    logit_bias: Biases | None = Field(None, description="Added to the logits of tokens, by their ids.")
    user: Identifier | None = Field(None, description="Changes nothing.")
    # This server's own.
    top_k: int | None = Field(None, ge=0, le=2**31 - 1, description="Only so many likeliest tokens; 0: all.")
    min_p: float | None = Field(None, ge=0, le=1, description="Only tokens this likely, as a part of the likeliest.")
    penalty_decay: float | None = Field(None, ge=0, le=1, description="By which old occurrences count less each step.")
    order: Literal["official", "usual"] | None = Field(None, description="Which filter sees what.")
    grammar: GrammarText | None = Field(None, description="The form of the answer: a Lark grammar as of llguidance.")
    regex: GrammarText | None = Field(None, description="The form of the answer: a regular expression.")
    cache: bool | None = Field(None, description="Whether states of this prompt are kept and used; true.")
    speculate: bool | None = Field(None, description="Whether tokens may be guessed from the text; false.")
    priority: int | None = Field(None, ge=-100, le=100, description="The higher, the sooner it begins; 0.")
    timeout: float | None = Field(None, gt=0, le=LONGEST_WAIT, description="Seconds after which the answer is cut off.")
    state: StateName | None = Field(None, description="A stored conversation to go on from.")
    save_state: StateName | None = Field(None, description="The name to store the conversation under afterwards.")

    @model_validator(mode="after")
    def _agrees(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream; set stream to true, or leave it out")
        if self.save_state is not None and (self.n or 1) > 1:
            raise ValueError("save_state stores one conversation; set n to 1, or leave it out")
        if self.grammar is not None and self.regex is not None:
            raise ValueError("grammar and regex exclude each other; give one of them")
        return self


class ChatRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(
        None, ge=1, le=MOST_NEW_TOKENS, description="The same as max_tokens, before which it goes."
    )
    logprobs: bool | None = Field(None, description="Tell how likely each token of the answer was.")
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS, description="And so many likeliest ones.")
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="The nearest think mode that the model has."
    )
    # This server's own.
    think: Name | None = Field(None, description="A think mode of those that /v1/models lists.")
    think_budget: int | None = Field(None, ge=0, le=MOST_NEW_TOKENS, description="The most tokens of the thought.")
    # What changes nothing.
    parallel_tool_calls: bool | None = Field(None, description="Changes nothing.")
    store: bool | None = Field(None, description="Changes nothing.")
    metadata: Metadata | None = Field(None, description="Changes nothing.")
    modalities: list[Literal["text"]] | None = Field(None, max_length=1, description="There is text only.")
    prompt_cache_key: Identifier | None = Field(None, description="Changes nothing.")
    safety_identifier: Identifier | None = Field(None, description="Changes nothing.")
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = Field(
        None, description="Changes nothing."
    )
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="Changes nothing.")

    @property
    def forces_call(self) -> bool:
        """Whether the answer has to be a function call."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def forms(self) -> list[str]:
        """The fields that give the answer a form."""
        given = ["response_format"] if not isinstance(self.response_format, TextFormat | None) else []
        return given + [name for name in ("grammar", "regex") if getattr(self, name) is not None]

    @model_validator(mode="after")
    def _makes_sense(self) -> ChatRequest:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have one name; give each a name of its own")
        if self.forces_call and not names:
            raise ValueError("tool_choice asks for a call and there are no tools; give tools, or leave it out")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice names {self.tool_choice.function.name}, which is none of the tools")
        forms = [*self.forms, *(["tool_choice"] if self.forces_call else [])]
        if len(forms) > 1:
            raise ValueError(f"{' and '.join(forms)} each give the answer a form; give one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs; set logprobs to true, or leave it out")
        if self.think is not None and self.reasoning_effort is not None:
            raise ValueError("think and reasoning_effort say the same; give one of them")
        return self


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: Annotated[Prompts, BeforeValidator(_prompts, json_schema_input_type=AnyPrompts)] = Field(
        description="One text or several, or their token ids; null: an empty text."
    )
    logprobs: int | None = Field(
        None, ge=0, le=MOST_TOP_LOGPROBS, description="Tell how likely each token was, and so many likeliest ones."
    )
    echo: bool | None = Field(None, description="Begin the text with the prompt.")
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES, description="The same as n.")
    suffix: None = Field(None, description="Always null: models do not fill in.")

    @field_validator("suffix", mode="before")
    @classmethod
    def _no_suffix(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("this model goes on with a text and cannot fill in before another; leave it out")
        return value

    @model_validator(mode="after")
    def _can_be_done(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of must equal n: answers are not compared; leave it out")
        if self.echo and self.logprobs is not None:
            raise ValueError("the logprobs of a prompt are not computed; leave out echo or logprobs")
        if self.save_state is not None and len(self.prompt) > 1:
            raise ValueError("save_state stores one conversation; give one prompt, or leave it out")
        return self
