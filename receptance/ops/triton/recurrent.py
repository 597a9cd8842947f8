"""wkv6 and wkv7 for a few tokens, one after the other: what decoding needs, where a chunk would be mostly empty."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["forward"]


@triton.jit
def forward(r, log_w, k, v, a, b, state, first, y, end, T, H, N: tl.constexpr, V: tl.constexpr):
    """y and the last state; a and b are None for wkv6, which reads before it writes."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(0).to(tl.int64) // H
    keys, values = tl.arange(0, N), tl.program_id(1) * V + tl.arange(0, V)
    matrix = values[:, None] * N + keys[None, :]
    S = tl.load(state + head * N * N + matrix)
    for t in range(T):
        place = ((row * T + t) * H + head % H) * N
        if first is not None:
            S = tl.where(tl.load(first + row * T + t).to(tl.int1), 0.0, S)
        reader = tl.load(r + place + keys).to(tl.float32)[None, :]
        decay = tl.exp(tl.load(log_w + place + keys).to(tl.float32))[None, :]
        key = tl.load(k + place + keys).to(tl.float32)[None, :]
        value = tl.load(v + place + values).to(tl.float32)[:, None]
        if a is not None:
            read = tl.sum(S * tl.load(a + place + keys).to(tl.float32)[None, :], 1)[:, None]
            S = S * decay + read * tl.load(b + place + keys).to(tl.float32)[None, :] + value * key
            tl.store(y + place + values, tl.sum(S * reader, 1))
        else:
            tl.store(y + place + values, tl.sum(S * reader, 1))
            S = S * decay + value * key
    tl.store(end + head * N * N + matrix, S)
