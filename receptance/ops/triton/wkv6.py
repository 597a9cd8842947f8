"""The gated recurrence of RWKV-5 and 6 in chunks, forward and backward: one program walks one head's chunks.

The mathematics is in the README of `ops`, section 2: no decay is ever divided by.  Every pair of an earlier and a later
step meets once in neighbouring blocks of 1, 2, 4 ... steps, and their decays are seen from the border between these:
since the later block began, and until the earlier one ends.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import dot, segments

__all__ = ["backward", "forward"]


# Below it a decay is nothing in float32, and its gradient is all rounding.
FADED = tl.constexpr(-17.0)


@triton.jit
def _pairs(level: tl.constexpr, C: tl.constexpr):
    """Of steps in blocks of 2^level: which are in the later block of a pair of neighbours [C, 1], which two steps are
    in such a pair, the later one and the earlier one [C, C]."""
    block = tl.arange(0, C) >> level
    is_later = (block % 2 == 1)[:, None]
    return is_later, is_later & (block[:, None] == block[None, :] + 1)


@triton.jit
def _joined(since, until, whole, level: tl.constexpr, C: tl.constexpr, N: tl.constexpr):
    """Sums of log w for blocks of 2^level steps as those for blocks of twice as many [C, N]: from a block's start to
    before each step, from after each step to the block's end, and over the block."""
    is_later, _ = _pairs(level, C)
    neighbour = (tl.arange(0, C) ^ (1 << level))[:, None]
    other = tl.gather(whole, tl.broadcast_to(neighbour, (C, N)), 0)
    return tl.where(is_later, since + other, since), tl.where(is_later, until, until + other), whole + other


@triton.jit
def forward(
    r, log_w, k, v, state, first, y, end, kept, T, H,
    N: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LOG_C: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """y and the last state; where there is room for them, the states that enter the chunks, kept [B, H, n, N, N]."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(0).to(tl.int64) // H
    num_chunks = tl.cdiv(T, C)
    steps, keys, values = tl.arange(0, C), tl.arange(0, N), tl.program_id(1) * V + tl.arange(0, V)
    matrix = values[:, None] * N + keys[None, :]
    S = tl.load(state + head * N * N + matrix)
    for chunk in range(num_chunks):
        t = chunk * C + steps
        place = ((row * T + t) * H + head % H)[:, None] * N
        inside = (t < T)[:, None]
        of_keys, of_values = place + keys[None, :], place + values[None, :]
        if kept is not None:
            tl.store(kept + (head * num_chunks + chunk) * N * N + matrix, S)
        decay = tl.load(log_w + of_keys, mask=inside, other=0.0).to(tl.float32)
        since, until, block = tl.zeros((C, N), tl.float32), tl.zeros((C, N), tl.float32), decay
        R = tl.load(r + of_keys, mask=inside, other=0.0).to(tl.float32)
        K = tl.load(k + of_keys, mask=inside, other=0.0).to(tl.float32)
        values_now = tl.load(v + of_values, mask=inside, other=0.0)
        scores = tl.zeros((C, C), tl.float32)
        for level in tl.static_range(LOG_C):
            is_later, pairs = _pairs(level, C)
            later, earlier = R * tl.exp(tl.where(is_later, since, 0.0)), K * tl.exp(tl.where(is_later, 0.0, until))
            scores += tl.where(pairs, dot(later, tl.trans(earlier), OPERAND, EXACT), 0.0)
            since, until, block = _joined(since, until, block, level, C, N)
        R, K, whole = R * tl.exp(since), K * tl.exp(until), tl.sum(decay, 0)
        if first is not None:
            segment, last = segments(first + row * T, t, T)
            scores = tl.where(segment[:, None] == segment[None, :], scores, 0.0)
            R = tl.where((segment == 0)[:, None], R, 0.0)
            K = tl.where((segment == last)[:, None], K, 0.0)
        out = dot(R, tl.trans(S), OPERAND, EXACT) + dot(scores, values_now, OPERAND, EXACT)
        tl.store(y + of_values, out, mask=inside)
        S *= tl.exp(whole)[None, :]
        if first is not None:
            S = tl.where(last == 0, S, 0.0)
        S += dot(tl.trans(values_now), K, OPERAND, EXACT)
    tl.store(end + head * N * N + matrix, S)


@triton.jit
def backward(
    r, log_w, k, v, first, kept, end, d_y, d_end, d_r, d_log_w, d_k, d_v, d_state, T, H, size,
    N: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LOG_C: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The gradients; those that are sums over the values, one part of `size` numbers for each program of a head."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(0).to(tl.int64) // H
    apart, num_chunks = tl.program_id(1).to(tl.int64) * size, tl.cdiv(T, C)
    steps, keys, values = tl.arange(0, C), tl.arange(0, N), tl.program_id(1) * V + tl.arange(0, V)
    matrix = values[:, None] * N + keys[None, :]
    D = tl.load(d_end + head * N * N + matrix)
    # What the decay of a whole chunk does to the state behind it.
    slope = tl.sum(D * tl.load(end + head * N * N + matrix), 0)
    for turn in range(num_chunks):
        chunk = num_chunks - 1 - turn
        t = chunk * C + steps
        place = ((row * T + t) * H + head % H)[:, None] * N
        inside = (t < T)[:, None]
        of_keys, of_values = place + keys[None, :], place + values[None, :]
        decay = tl.load(log_w + of_keys, mask=inside, other=0.0).to(tl.float32)
        since, until, block = tl.zeros((C, N), tl.float32), tl.zeros((C, N), tl.float32), decay
        R = tl.load(r + of_keys, mask=inside, other=0.0).to(tl.float32)
        K = tl.load(k + of_keys, mask=inside, other=0.0).to(tl.float32)
        values_now = tl.load(v + of_values, mask=inside, other=0.0)
        dY = tl.load(d_y + of_values, mask=inside, other=0.0)
        S = tl.load(kept + (head * num_chunks + chunk) * N * N + matrix).to(tl.float32)
        of_scores = dot(dY, tl.trans(values_now), OPERAND, EXACT)
        values_ends, old = values_now, inside
        if first is not None:
            segment, last = segments(first + row * T, t, T)
            of_scores = tl.where(segment[:, None] == segment[None, :], of_scores, 0.0)
            values_ends = tl.where((segment == last)[:, None], values_now, 0.0)
            old = (segment == 0)[:, None]
        scores = tl.zeros((C, C), tl.float32)
        dR, dK = tl.zeros((C, N), tl.float32), tl.zeros((C, N), tl.float32)
        for level in tl.static_range(LOG_C):
            is_later, pairs = _pairs(level, C)
            from_border = tl.exp(tl.where(is_later, since, 0.0))
            to_border = tl.exp(tl.where(is_later, 0.0, until))
            later, earlier, own = R * from_border, K * to_border, tl.where(pairs, of_scores, 0.0)
            scores += tl.where(pairs, dot(later, tl.trans(earlier), OPERAND, EXACT), 0.0)
            dR += dot(own, earlier, OPERAND, EXACT) * from_border
            dK += dot(tl.trans(own), later, OPERAND, EXACT) * to_border
            since, until, block = _joined(since, until, block, level, C, N)
        if first is not None:
            scores = tl.where(segment[:, None] == segment[None, :], scores, 0.0)
        enters, leaves, whole = tl.exp(since), tl.exp(until), tl.sum(decay, 0)
        kept_keys = dot(K * leaves, tl.trans(D), OPERAND, EXACT)
        if first is not None:
            kept_keys = tl.where((segment == last)[:, None], kept_keys, 0.0)
        dV = dot(tl.trans(scores), dY, OPERAND, EXACT) + kept_keys
        tl.store(d_v + of_values, dV, mask=inside)
        dK += dot(values_ends, D, OPERAND, EXACT) * leaves
        reading = tl.where(old, dY, 0.0)
        dR += dot(reading, S, OPERAND, EXACT) * enters
        tl.store(d_r + apart + of_keys, dR, mask=inside)
        tl.store(d_k + apart + of_keys, dK, mask=inside)
        # log_w of a step is in what later steps read, and in what it and earlier ones wrote.
        dR, dK = dR * R, dK * K
        grown = tl.cumsum(dR - dK, 0, reverse=True) - dR + slope[None, :]
        tl.store(d_log_w + apart + of_keys, tl.where(decay > FADED, grown, 0.0), mask=inside)
        D *= tl.exp(whole)[None, :]
        if first is not None:
            D = tl.where(last == 0, D, 0.0)
        D += dot(tl.trans(reading), R * enters, OPERAND, EXACT)
        slope = tl.sum(S * D, 0)
    tl.store(d_state + head * N * N + matrix, D)
