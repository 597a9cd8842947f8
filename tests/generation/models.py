"""Models to generate with: small noisy ones, and one that says what it is told to while its state is a true one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from receptance import RWKV, Config

from ..models.cases import noisy


def small(version: str = "7", vocab_size: int = 256, dtype: torch.dtype = torch.float64) -> RWKV:
    """A noisy model of two layers."""
    model = noisy(Config(version=version, vocab_size=vocab_size, num_layers=2, dim=32, head_size=8), dtype)
    return model.requires_grad_(False)


class Script(nn.Module):
    """A head for which the next token is always the next one of a list, and then the end of the text."""

    def __init__(self, tokens: Sequence[int], vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.vocab_size = list(tokens), vocab_size

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(*x.shape[:-1], self.vocab_size, dtype=x.dtype)
        logits[..., self.tokens.pop(0) if self.tokens else 0] = 100.0
        return logits


def scripted(model: RWKV, tokens: Sequence[int]) -> RWKV:
    """The same model, made to say `tokens`."""
    model.head = Script(tokens, model.config.vocab_size)  # type: ignore[assignment]
    return model
