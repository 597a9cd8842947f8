"""How the weights of a product are stored, as numbers that kernels, packers and `runtime` share.  Needs no Numba.

Scales are bfloat16, one for a group of 32 weights.  An output is the r-th of a tile t of 16, an input one of a group g
of 32.  Padding has scales of 0.

    by output: what nn.Linear has, or tiles; in a multiple of 32 for the last two, out padded to a multiple of 16
        FLOAT32, BFLOAT16   [out, in]
        INT8   uint8 [out/16, in/32, 8, 16, 4]       [t, g, s, r, j] = q[16 t + r, 32 g + 4 s + j] + 128
        INT4   uint8 [out/16, in/32, 4, 16, 4]       low nibble of [t, g, s, r, j] = q[16 t + r, 32 g + 8 s + j] + 8
                                                     high nibble = q[16 t + r, 32 g + 8 s + 4 + j] + 8
        their scales  [out/16, in/32, 16]            weight = q * scales[t, g, r]

    by input, format + BY_INPUT: a row for each input, so that it need not be read where the input is 0; out padded to a
    multiple of 128 for the last two
        FLOAT32, BFLOAT16   [in, out]
        INT8   uint8 [in, out]                       [j, o] = q[o, j] + 128
        INT4   uint8 [in, out/128, 16, 4], which is little-endian uint32 [in, out/128, 16]
                                                     bits 4n .. 4n+3 of [j, block, l] = q[128 block + 16 n + l, j] + 8
        their scales  [in, out/32]                   weight = q * scales[j, o/32]
"""

from __future__ import annotations

# Formats; a kind is a format, plus BY_INPUT where the matrix has a row for each input.
FLOAT32, BFLOAT16, INT8, INT4 = range(4)
BY_INPUT = 4

GROUP = 32  # weights or activations that share a scale
TILE = 16  # outputs that are stored side by side, by output
BLOCK = 128  # outputs that are stored side by side, by input
SEGMENTS = 8  # parts of the inputs whose sums are added at last, by input
