"""Measuring models: what a token costs after a long context."""

from .context_cost import ContextCost, cost_of_rwkv, cost_of_transformer, resident_bytes, step_seconds

__all__ = ["ContextCost", "cost_of_rwkv", "cost_of_transformer", "resident_bytes", "step_seconds"]
