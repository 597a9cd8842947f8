"""int8 and int4 as data: groups of 32 numbers, each with a scale in bfloat16.

    q, scales = round_groups(rows, INT4)        # rows ~ q * scales, group by group

A weight takes 8.5 bits in int8 and 4.5 in int4.  How the numbers are laid out in memory is `packing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..ops.cpu import storage
from ..ops.cpu.storage import GROUP

# Candidates for an int4 group's scale: what its largest number is divided by.  It becomes -8 or nearly so, because
# there is no +8; the larger the divisor, the more of it is cut off, and the finer are the others.
DIVISORS = (-8.0, -8.5, -7.5, -7.0, -6.5, -6.0)


@dataclass(frozen=True)
class Format:
    """Whole numbers from `lowest` to `highest`.

    number     the format's in `ops.cpu.storage`
    """

    name: str
    number: int
    num_bits: int
    lowest: int
    highest: int

    @property
    def offset(self) -> int:
        """What is added to a number, so that it can be stored without a sign."""
        return 1 << (self.num_bits - 1)

    @property
    def bits_per_weight(self) -> float:
        """With its share of the scale."""
        return self.num_bits + 16 / GROUP


INT8 = Format("int8", storage.INT8, 8, -127, 127)
INT4 = Format("int4", storage.INT4, 4, -8, 7)
FORMATS = {format.name: format for format in (INT8, INT4)}


def format_of(name: str) -> Format:
    """A format by its name.  Raises InputError for any other."""
    if name not in FORMATS:
        raise InputError(f"{name!r} is no format of weights; choose {' or '.join(FORMATS)}")
    return FORMATS[name]


def round_groups(rows: Tensor, format: Format) -> tuple[Tensor, Tensor]:
    """rows [R, n], n a multiple of 32  ->  q [R, n] int8 and scales [R, n/32] bfloat16 with rows ~ q * scales.

    The numbers are rounded with the scale as it is stored.  Raises InputError for NaN and infinity.
    """
    groups = rows.float().unflatten(1, (-1, GROUP))
    q, scales = (_round_int8 if format is INT8 else _round_int4)(groups)
    if not bool(scales.isfinite().all()):
        raise InputError("weights with NaN or infinity cannot be quantised; their training went wrong")
    return q.to(torch.int8).flatten(1), scales.squeeze(-1)


def _round_int8(groups: Tensor) -> tuple[Tensor, Tensor]:
    scales = (groups.abs().amax(-1, keepdim=True) / INT8.highest).bfloat16()
    return _rounded(groups, scales, INT8), scales


def _round_int4(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of the least squared error among the candidates and the one that fits what the best rounds to."""
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scales = (largest / DIVISORS[0]).bfloat16()
    q = _rounded(groups, scales, INT4)
    error = _error(groups, q, scales)
    for divisor in (*DIVISORS[1:], None):
        tried = (_fitted(groups, q) if divisor is None else largest / divisor).bfloat16()
        other = _rounded(groups, tried, INT4)
        other_error = _error(groups, other, tried)
        better = other_error < error
        q, scales = torch.where(better, other, q), torch.where(better, tried, scales)
        error = torch.where(better, other_error, error)
    return q, scales


def _fitted(groups: Tensor, q: Tensor) -> Tensor:
    """The scale with which these whole numbers come nearest to the groups; 0 where they are 0 all."""
    return (groups * q).sum(-1, keepdim=True) / q.square().sum(-1, keepdim=True).clamp(min=1)


def _rounded(groups: Tensor, scales: Tensor, format: Format) -> Tensor:
    # Where the scale is 0, so are all numbers, or nearly.
    steps = scales.float()
    inverse = torch.where(steps == 0, 0.0, 1 / steps)
    return (groups * inverse).round_().clamp_(format.lowest, format.highest)


def _error(groups: Tensor, q: Tensor, scales: Tensor) -> Tensor:
    return torch.addcmul(groups, q, scales.float(), value=-1).square_().sum(-1, keepdim=True)
