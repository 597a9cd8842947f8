"""Text in, text out: sampling, stops, completions and conversations.

[answer] = complete(model, tokenizer, [Prompt("def f(", Sampling(temperature=0))])
for piece in Stream(model, tokenizer, Prompt("def f(")): ...
chat = Chat(model, tokenizer, TEMPLATES["world"])

`receptance.load(...)` offers the same without naming model and tokenizer: `lm.generate`, `lm.stream`, `lm.chat`.
"""

from .chat import Chat, Reply
from .completion import Completion, Prompt, Stream, TokenLogprob, complete
from .continuation import Continuation
from .decoding import Decoding, read
from .sampling import PRESETS, Choice, Sampler, Sampling, preset_for

__all__ = [
    "PRESETS",
    "Chat",
    "Choice",
    "Completion",
    "Continuation",
    "Decoding",
    "Prompt",
    "Reply",
    "Sampler",
    "Sampling",
    "Stream",
    "TokenLogprob",
    "complete",
    "preset_for",
    "read",
]
