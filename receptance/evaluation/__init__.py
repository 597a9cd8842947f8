"""Measuring models: what a token costs after a long context, how well a text is foretold, how far two models agree."""

from .agreement import Agreement, compare
from .context_cost import ContextCost, cost_of_rwkv, cost_of_transformer, step_seconds
from .perplexity import Score, open_text, score, text_pieces

__all__ = [
    "Agreement",
    "ContextCost",
    "Score",
    "compare",
    "cost_of_rwkv",
    "cost_of_transformer",
    "open_text",
    "score",
    "step_seconds",
    "text_pieces",
]
