"""The largest values of each row: in falling order, of equal ones the lowest index first, on every device.

    ids = ranked(logits, 1000)                   # [B, V] -> [B, 1000]
    ids = largest(logits, 10)                    # the same, but exact at the end

PyTorch's `topk` leaves open which of several equal values it takes and in which order, and in a bfloat16 model equal
logits are common.  So a value and its index become one integer, and no two of these are equal.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LOW_BITS = 2**32 - 1


def ranked(values: Tensor, k: int) -> Tensor:
    """Indices [B, k] of the k largest of values [B, V] float32; V is at most 2**32, and no value is NaN.

    Open is only which ones they are of those that equal the k-th.
    """
    if k >= values.shape[1]:
        ids = torch.arange(values.shape[1], device=values.device).expand(values.shape)
    elif values.device.type == "cpu":
        # NumPy has vector instructions for this and takes a fraction of PyTorch's time.
        ids = torch.from_numpy(np.argpartition(values.numpy(), values.shape[1] - k, axis=1)[:, -k:])
    else:
        ids = values.topk(k, sorted=False).indices
    return _LOW_BITS - (_sort_falling(_keys(values.gather(1, ids), ids)) & _LOW_BITS)


def largest(values: Tensor, n: int) -> Tensor:
    """Indices [B, n] of the n largest of values [B, V], of equal ones always the lowest."""
    k = min(2 * n, values.shape[1])
    ids = ranked(values, k)
    ends = values.gather(1, ids[:, [n - 1, -1]])
    if k < values.shape[1] and (ends[:, 0] == ends[:, 1]).any():
        ids = ranked(values, values.shape[1])
    return ids[:, :n]


def _keys(values: Tensor, ids: Tensor) -> Tensor:
    """Integers in the order of the values, and for equal values in falling order of their ids."""
    # Adding 0 turns -0.0 into 0.0, which is equal to it and has other bits.
    bits = (values + 0.0).view(torch.int32)
    # The bits of floating-point numbers rise with them, but for negative ones, where they rise with the magnitude.
    bits = bits ^ ((bits >> 31) & (2**31 - 1))
    return (bits.long() << 32) | (_LOW_BITS - ids)


def _sort_falling(keys: Tensor) -> Tensor:
    if keys.device.type != "cpu":
        return keys.sort(dim=1, descending=True).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1)).flip(1)
