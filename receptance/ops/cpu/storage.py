"""How the weights of a product are stored, as numbers that kernels, packers and `runtime` share.  Needs no Numba.

Scales are bfloat16, one for a group of 32 weights.  Padding has scales of 0.

    by output: what nn.Linear has, or tiles of 16 outputs; in a multiple of 32 for the last two, out padded to a
    multiple of 16; s, r and j count what the last axes hold
        FLOAT32, BFLOAT16   [out, in]
        INT8   uint8 [out/16, in/32, 8, 16, 4]       [t, g, s, r, j] = q[16 t + r, 32 g + 4 s + j] + 128
        INT4   uint8 [out/16, in/32, 4, 16, 4]       low nibble of [t, g, s, r, j] = q[16 t + r, 32 g + 8 s + j] + 8
                                                     high nibble = q[16 t + r, 32 g + 8 s + 4 + j] + 8
        their scales  [out/16, in/32, 16]            weight = q * scales[t, g, r]

    by input, format + BY_INPUT: panels of 128 outputs with a row for each input, which need not be read where the
    input is 0; out padded to a multiple of 128
        FLOAT32, BFLOAT16   [out/128, in, 128]
        INT8   uint8 [out/128, in, 128]              [p, j, o] = q[128 p + o, j] + 128
        INT4   uint8 [out/128, in, 16, 4], which is little-endian uint32 [out/128, in, 16]
                                                     bits 4n .. 4n+3 of [p, j, l] = q[128 p + 16 n + l, j] + 8
        their scales  [out/128, in, 4]               weight = q * scales[p, j, o/32]

Products by output of INT8 and INT4 read activations that are rounded to int8; those by input read a list of the inputs
that count.  Both stand in memory of so many float32 for each row of activations.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# Formats; a kind is a format, plus BY_INPUT where the matrix has a row for each input.
FLOAT32, BFLOAT16, INT8, INT4 = range(4)
BY_INPUT = 4

GROUP = 32  # weights or activations that share a scale
TILE = 16  # outputs that are stored side by side, by output
PANEL = 128  # outputs that are stored side by side, by input
LIST_END = 128  # places behind a list of inputs, for whoever reads ahead


def rounded_size(num_in: int) -> int:
    """float32 for a row that is rounded: its int8, a scale and a sum for each group."""
    return num_in // 4 + 2 * (num_in // GROUP)


def listed_size(num_in: int) -> int:
    """float32 for a row that is listed: inputs, their activations, and how many there are."""
    return 2 * (num_in + LIST_END) + 1


def in_panels(weight: Tensor) -> Tensor:
    """A weight [out, in] as panels [out/128, in, 128], padded with zeros."""
    padded = F.pad(weight, (0, 0, 0, -len(weight) % PANEL))
    return padded.view(-1, PANEL, weight.shape[1]).mT.contiguous()
