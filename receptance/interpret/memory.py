"""How long each layer remembers, and how much of its state a text changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..models import RWKV
from ..ops import dispatch
from ..state import State

# Where the recurrences take their decays from: log_w is the first of `wkv4`'s inputs and the second of the others'.
DECAYS = {"wkv4": 0, "wkv6": 1, "wkv7": 1}


@dataclass(frozen=True)
class HalfLife:
    """Tokens until half of what a channel remembers has faded; infinite where nothing fades.

    A tenth, half and nine tenths of the channels forget sooner.
    """

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class LayerMemory:
    """One layer's memory.

    half_life   by the decay alone, on average over the text; what RWKV-7 replaces on purpose is not in it
    norm        length of the state after the text
    change      length of its difference from the state before the text, as a part of that; None: it was empty
    """

    half_life: HalfLife
    norm: float
    change: float | None


class _Decays(TorchFunctionMode):
    """Sees the recurrences' inputs as a model calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is dispatch.call and args[0] in DECAYS:
            self.seen.append(args[2][DECAYS[args[0]]])
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def decays(model: RWKV, tokens: Sequence[int], state: State | None = None) -> tuple[list[Tensor], State]:
    """log_w of every layer, [T, channels], while a text is read after `state`, and the state after it.

    Raises InputError where there is nothing to read, StateError where the state does not fit.
    """
    if not tokens:
        raise InputError("there is nothing to read; give at least one token")
    with _Decays() as watching:
        _, after = model.features(torch.tensor([list(tokens)], device=model.emb.weight.device), state)
    return [log_w[0].flatten(1).float() for log_w in watching.seen], after


def memory(
    model: RWKV, tokens: Sequence[int], state: State | None = None, since: State | None = None
) -> list[LayerMemory]:
    """What each layer does with a text that is read after `state`.

    since   the state from which the change is measured, where that is an earlier one

    Raises what `decays` raises.
    """
    found, after = decays(model, tokens, state)
    before = since or state or model.zero_state(1)
    return [
        LayerMemory(_half_life(log_w), *_change(old, new))
        for log_w, old, new in zip(found, before.wkv.unbind(), after.wkv.unbind(), strict=True)
    ]


def _half_life(log_w: Tensor) -> HalfLife:
    rates = -log_w.mean(0)
    quantiles = (math.log(2) / rates).quantile(torch.tensor([0.1, 0.5, 0.9], device=rates.device))
    return HalfLife(*quantiles.tolist())


def _change(old: Tensor, new: Tensor) -> tuple[float, float | None]:
    """Of RWKV-4 in terms of what it reads out, numerator over denominator: the rest is how that is kept."""
    if old.dim() == 3:
        old, new = (part[:, 0] / part[:, 1].where(part[:, 1] != 0, 1.0) for part in (old, new))
    length = old.norm().item()
    return new.norm().item(), (new - old).norm().item() / length if length > 0 else None
