"""Text in, text out: sampling, stops, completions and conversations.

[answer] = complete(model, tokenizer, [Prompt("def f(", Sampling(temperature=0))])
for piece in Stream(model, tokenizer, Prompt("def f(")): ...
chat = Chat(model, tokenizer, TEMPLATES["world"])

`receptance.load(...)` offers the same without naming model and tokenizer: `lm.generate`, `lm.stream`, `lm.chat`.
"""

from .answer import Reply
from .chat import Chat
from .completion import Completion, Prompt, Stream, TokenLogprob, complete, logprobs_of
from .continuation import Continuation
from .decoding import Called, Decoding, Stepper, read, stepper
from .penalties import uncounted_tokens
from .presets import PRESETS, preset_for
from .sampling import Choice, RowError, Sampler, Top
from .settings import Sampling
from .transcript import Moment

__all__ = [
    "PRESETS",
    "Called",
    "Chat",
    "Choice",
    "Completion",
    "Continuation",
    "Decoding",
    "Moment",
    "Prompt",
    "Reply",
    "RowError",
    "Sampler",
    "Sampling",
    "Stepper",
    "Stream",
    "TokenLogprob",
    "Top",
    "complete",
    "logprobs_of",
    "preset_for",
    "read",
    "stepper",
    "uncounted_tokens",
]
