"""How a tensor of another dialect lies in memory beside the official one: transposed, stacked, reordered.

LAYOUTS["transposed"].to_official(stored)       # -> [official]
LAYOUTS["transposed"].to_stored([official])     # -> stored

Each layout is a pair of inverse functions.  They also work on tensors on the meta device, which is how shapes are
known before anything is read.  Dimensions of size 1 do not count here: the reader gives every tensor its official
number of dimensions afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """to_stored takes the official tensors that one stored tensor holds; to_official gives them back in that order."""

    to_stored: Callable[[Sequence[Tensor]], Tensor]
    to_official: Callable[[Tensor], Sequence[Tensor]]


# The five mixes of RWKV-6, as the official files order their blocks and as flash-linear-attention does.
OFFICIAL_MIXES, FLA_MIXES = "wkvrg", "rwkvg"
_TO_FLA = [OFFICIAL_MIXES.index(mix) for mix in FLA_MIXES]
_TO_OFFICIAL = [FLA_MIXES.index(mix) for mix in OFFICIAL_MIXES]


def _stack_apart(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors of C -> [number, 1, 1, C], so that a batch of rows can be multiplied by all of them."""
    return torch.stack([tensor.flatten() for tensor in tensors])[:, None, None]


def _mix_down_to_fla(tensors: Sequence[Tensor]) -> Tensor:
    """time_maa_w1 [C, 5R] -> [5R, C], blocks reordered."""
    (w1,) = tensors
    return w1.reshape(len(w1), 5, -1)[:, _TO_FLA].flatten(1).T


def _mix_down_to_official(stored: Tensor) -> Sequence[Tensor]:
    return [stored.T.reshape(stored.shape[1], 5, -1)[:, _TO_OFFICIAL].flatten(1)]


def _mix_up_to_fla(tensors: Sequence[Tensor]) -> Tensor:
    """time_maa_w2 [5, R, C] -> [C, 5R], blocks reordered."""
    (w2,) = tensors
    return w2[_TO_FLA].flatten(0, 1).T


def _mix_up_to_official(stored: Tensor) -> Sequence[Tensor]:
    return [stored.T.reshape(5, -1, len(stored))[_TO_OFFICIAL]]


LAYOUTS = {
    "same": Layout(lambda tensors: tensors[0], lambda stored: [stored]),
    "flat": Layout(lambda tensors: tensors[0].flatten(), lambda stored: [stored]),
    "transposed": Layout(lambda tensors: tensors[0].mT, lambda stored: [stored.mT]),
    "stacked": Layout(lambda tensors: torch.stack([t.flatten() for t in tensors]), lambda stored: stored.unbind(0)),
    "stacked apart": Layout(_stack_apart, lambda stored: stored.reshape(len(stored), -1).unbind(0)),
    "mix down": Layout(_mix_down_to_fla, _mix_down_to_official),
    "mix up": Layout(_mix_up_to_fla, _mix_up_to_official),
}
