"""What goes out, in OpenAI's shape: answers, chunks of a stream, models, errors.

    ChatCompletion(id="chatcmpl-1", created=0, model="m", choices=[...]).model_dump_json(exclude_unset=True)

A field that does not apply is left out, so all of them are written with `exclude_unset`; `bodies` makes them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

ChatFinish = Literal["stop", "length", "tool_calls"]
TextFinish = Literal["stop", "length"]


class PromptDetails(BaseModel):
    """Of the prompt's tokens."""

    cached_tokens: int = Field(description="Those whose state was kept from earlier requests.")


class CompletionDetails(BaseModel):
    """Of the answer's tokens."""

    reasoning_tokens: int = Field(description="Those of the thought.")


class Usage(BaseModel):
    """How many tokens were read and made, of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TopLogprob(BaseModel):
    """A token and how likely it was."""

    token: str = Field(description="Its text; bytes that are no text are written as \\x and two digits.")
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """One entry a token of the content."""

    content: list[TokenLogprob]
    refusal: None = None


class FunctionCall(BaseModel):
    """A function that the model wants to be called."""

    name: str
    arguments: str = Field(description="A JSON object, as a text.")


class ToolCall(BaseModel):
    """One call."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ToolCallPiece(ToolCall):
    """One call in a stream; it comes whole."""

    index: int


class ChatMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None = Field(description="Null where there are calls only.")
    refusal: None = None
    reasoning_content: str = Field(default="", description="The thought.")
    tool_calls: list[ToolCall] = Field(default=[], description="The functions to be called.")


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinish


class Response(BaseModel):
    """What all answers have."""

    id: str
    created: int = Field(description="Seconds since 1970.")
    model: str
    system_fingerprint: str


class ChatCompletion(Response):
    """The answer of POST /v1/chat/completions."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    """What has been added to the answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    reasoning_content: str = ""
    tool_calls: list[ToolCallPiece] = []


class ChunkChoice(BaseModel):
    """An addition to one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinish | None


class ChatChunk(Response):
    """One piece of the stream of POST /v1/chat/completions."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextLogprobs(BaseModel):
    """One entry a token, in each list."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="Where in the text the token begins, in characters.")


class TextChoice(BaseModel):
    """One continuation, or a piece of one, whose end has no reason yet."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: TextFinish | None


class Completion(Response):
    """The answer of POST /v1/completions, and each piece of its stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class ModelAbout(BaseModel):
    """What this server tells of a model besides its name."""

    version: str = Field(description="The generation of RWKV.")
    num_layers: int
    dim: int
    vocab_size: int
    template: str = Field(description="The form of a conversation.")
    think_modes: list[str]
    default_think: str
    sampling: dict[str, Any] = Field(description="What holds where a request says nothing.")
    adapters: list[str]
    states: list[str] = Field(description="Tuned states, by name.")


class Model(BaseModel):
    """A model that can be asked for by its id."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Seconds since 1970.")
    owned_by: str
    receptance: ModelAbout


class ModelList(BaseModel):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[Model]


class Error(BaseModel):
    """Why something was not done."""

    message: str
    type: str
    param: str | None = Field(description="The field that it is about.")
    code: str | None


class ErrorBody(BaseModel):
    """The answer where something was not done."""

    error: Error
