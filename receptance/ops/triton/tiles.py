"""What the kernels do with the tiles of a chunk of C steps: products, decays, triangular systems.

OPERAND is the dtype of the factors of large products, EXACT how Triton multiplies in float32 where a factor must not be
rounded to it ("tf32", or "tf32x3" where OPERAND is float32 itself).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["decays", "dot", "inverse", "segments"]


@triton.jit
def dot(x, y, OPERAND: tl.constexpr, EXACT: tl.constexpr):
    """x y, summed in float32."""
    return tl.dot(x.to(OPERAND), y.to(OPERAND), input_precision=EXACT, out_dtype=tl.float32)


@triton.jit
def decays(log_w, C: tl.constexpr):
    """Of log_w [C, N], with L its sum up to each step and M that over the first half of the chunk:

    L - M [C, N], which is never further from 0 than the decay of half a chunk; e^M and e^{L_C - M} [N].
    """
    steps = tl.arange(0, C)[:, None]
    whole = tl.sum(log_w, 0)
    middle = tl.sum(tl.where(steps < C // 2, log_w, 0.0), 0)
    return tl.cumsum(log_w, 0) - middle[None, :], tl.exp(middle), tl.exp(whole - middle)


@triton.jit
def segments(first, t, T):
    """How many documents began in the chunk up to each step t [C], and in all of it.  `first` points to the row."""
    begins = tl.load(first + t, mask=t < T, other=0).to(tl.int32)
    return tl.cumsum(begins, 0), tl.sum(begins, 0)


@triton.jit
def inverse(L, C: tl.constexpr, LOG_C: tl.constexpr, EXACT: tl.constexpr):
    """(I - L)^-1 of L [C, C], which is 0 on and above the diagonal.

    X holds the inverses of the blocks on the diagonal, of 1, 2, 4 ... C steps.  With E what joins two neighbours,
    X + X E X has that of both as one block.  No power of L is taken: where keys repeat, its entries are very large, and
    those of the inverse are not.
    """
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    X = tl.where(i == j, 1.0, 0.0)
    for level in tl.static_range(LOG_C):
        E = tl.where(((i >> level) % 2 == 1) & ((i >> level) == (j >> level) + 1), L, 0.0)
        if level == 0:
            X += E
        else:
            X += dot(dot(X, E, tl.float32, EXACT), X, tl.float32, EXACT)
    return X
