"""What the Transformer and the LSTM share: the call, the groups for the optimiser, and how a size is chosen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models import num_parameters


class Peer(nn.Module):
    """A model with the call `model(tokens, state)`."""

    head: nn.Linear

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens [B, T] to what the head reads [B, T, C], and the state after them."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens [B, T] to logits [B, T, V], and the state after them."""
        x, state = self.features(tokens, state)
        return self.head(x), state

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for torch.optim.AdamW: matrices decay, vectors do not, all learn at the same rate."""
        groups: list[dict[str, Any]] = []
        for decays in (True, False):
            named = [(name, p) for name, p in self.named_parameters() if (p.dim() >= 2) == decays]
            group: dict[str, Any] = {"params": [p for _, p in named], "names": [name for name, _ in named]}
            groups.append(group | {"lr": lr, "lr_multiple": 1.0, "weight_decay": weight_decay if decays else 0.0})
        return groups


def closest_size(model: nn.Module, make: Callable[[int], nn.Module], step: int = 8) -> int:
    """The multiple of `step` with which `make` comes closest to the model's number of parameters."""

    def excess(size: int) -> int:
        with torch.device("meta"):
            return num_parameters(make(size)) - wanted

    wanted = num_parameters(model)
    sizes = range(step, 2**20, step)
    first_too_large = bisect_right(sizes, 0, key=excess)
    return min(sizes[max(0, first_too_large - 1) : first_too_large + 1], key=lambda size: abs(excess(size)))
