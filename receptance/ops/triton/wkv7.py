"""RWKV-7's delta rule in chunks, forward and backward: one program walks one head's chunks and keeps the state.

The mathematics is in the README of `ops`, section 3, in the same letters; here decays are seen from the middle of a
chunk, so the state that enters it is S e^M.  A program may have a part of the state's rows (values), which are
independent of each other; what is summed over them backward is then left in parts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import decays, dot, inverse, segments

__all__ = ["backward", "forward"]


@triton.jit
def _scores(x, y, seen, OPERAND: tl.constexpr, EXACT: tl.constexpr):
    """x y^T of the steps that are seen [C, C]."""
    return tl.where(seen, dot(x, tl.trans(y), OPERAND, EXACT), 0.0)


@triton.jit
def _factors(r, a, b, k, place, inside, here, decay, OPERAND: tl.constexpr):
    """R, A, B and K of a chunk [C, N], with their decays seen from its middle."""
    R = tl.load(r + place, mask=inside, other=0.0) * tl.exp(here)
    A = tl.load(a + place, mask=inside, other=0.0) * tl.exp(here - decay)
    B = tl.load(b + place, mask=inside, other=0.0) * tl.exp(-here)
    K = tl.load(k + place, mask=inside, other=0.0) * tl.exp(-here)
    return R.to(OPERAND), A.to(OPERAND), B.to(OPERAND), K.to(OPERAND)


@triton.jit
def forward(
    r,
    log_w,
    k,
    v,
    a,
    b,
    state,
    first,
    y,
    end,
    kept,
    u,
    solution,
    T,
    H,
    N: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LOG_C: tl.constexpr,
    OPERAND: tl.constexpr,
    EXACT: tl.constexpr,
):
    """y and the last state.  Where there is room for them (not None): the states that enter the chunks
    kept [B, H, n, N, N], u [B, T, H, N] and the chunks' (I - ab)^-1, solution [B, H, n, C, C]."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(0).to(tl.int64) // H
    part, num_chunks = tl.program_id(1), tl.cdiv(T, C)
    steps, keys, values = tl.arange(0, C), tl.arange(0, N), tl.program_id(1) * V + tl.arange(0, V)
    i, j = steps[:, None], steps[None, :]
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
        here, into, out = decays(decay, C)
        R, A, B, K = _factors(r, a, b, k, of_keys, inside, here, decay, OPERAND)
        values_now = tl.load(v + of_values, mask=inside, other=0.0)
        seen, before = i >= j, i > j
        if first is not None:
            segment, last = segments(first + row * T, t, T)
            same = segment[:, None] == segment[None, :]
            seen, before = seen & same, before & same
        X = inverse(_scores(A, B, before, OPERAND, EXACT), C, LOG_C, EXACT)
        ak = _scores(A, K, before, OPERAND, EXACT)
        rb, rk = _scores(R, B, seen, OPERAND, EXACT), _scores(R, K, seen, OPERAND, EXACT)
        S *= into[None, :]
        if first is not None:
            old = (segment == 0)[:, None]
            R, A = tl.where(old, R, 0.0), tl.where(old, A, 0.0)
        entering = tl.trans(S)
        read = dot(A, entering, OPERAND, EXACT) + dot(ak, values_now, OPERAND, EXACT)
        U = dot(X, read, OPERAND, EXACT)
        out_now = dot(R, entering, OPERAND, EXACT) + dot(rb, U, OPERAND, EXACT) + dot(rk, values_now, OPERAND, EXACT)
        tl.store(y + of_values, out_now, mask=inside)
        if u is not None:
            tl.store(u + of_values, U, mask=inside)
            if part == 0:
                tl.store(solution + (head * num_chunks + chunk) * C * C + i * C + j, X)
        if first is not None:
            ends = (segment == last)[:, None]
            B, K = tl.where(ends, B, 0.0), tl.where(ends, K, 0.0)
            S = tl.where(last == 0, S, 0.0)
        S += dot(tl.trans(U), B, OPERAND, EXACT) + dot(tl.trans(values_now), K, OPERAND, EXACT)
        S *= out[None, :]
    tl.store(end + head * N * N + matrix, S)


@triton.jit
def backward(
    r,
    log_w,
    k,
    v,
    a,
    b,
    first,
    kept,
    u,
    solution,
    end,
    d_y,
    d_end,
    d_r,
    d_log_w,
    d_k,
    d_v,
    d_a,
    d_b,
    d_state,
    T,
    H,
    size,
    N: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    LOG_C: tl.constexpr,
    OPERAND: tl.constexpr,
    EXACT: tl.constexpr,
):
    """The gradients; those that are sums over the values, one part of `size` numbers for each program of a head."""
    head, row = tl.program_id(0).to(tl.int64), tl.program_id(0).to(tl.int64) // H
    apart, num_chunks = tl.program_id(1).to(tl.int64) * size, tl.cdiv(T, C)
    steps, keys, values = tl.arange(0, C), tl.arange(0, N), tl.program_id(1) * V + tl.arange(0, V)
    i, j = steps[:, None], steps[None, :]
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
        here, into, out = decays(decay, C)
        R, A, B, K = _factors(r, a, b, k, of_keys, inside, here, decay, OPERAND)
        values_now = tl.load(v + of_values, mask=inside, other=0.0)
        U = tl.load(u + of_values, mask=inside, other=0.0)
        dY = tl.load(d_y + of_values, mask=inside, other=0.0)
        X = tl.load(solution + (head * num_chunks + chunk) * C * C + i * C + j)
        S = tl.load(kept + (head * num_chunks + chunk) * N * N + matrix).to(tl.float32)
        seen, before = i >= j, i > j
        U_ends, values_ends = U, values_now
        if first is not None:
            segment, last = segments(first + row * T, t, T)
            same, ends = segment[:, None] == segment[None, :], (segment == last)[:, None]
            seen, before = seen & same, before & same
            U_ends, values_ends = tl.where(ends, U, 0.0), tl.where(ends, values_now, 0.0)
        rb, rk = _scores(R, B, seen, OPERAND, EXACT), _scores(R, K, seen, OPERAND, EXACT)
        ak = _scores(A, K, before, OPERAND, EXACT)
        D *= out[None, :]
        through_B, through_K = dot(B, tl.trans(D), OPERAND, EXACT), dot(K, tl.trans(D), OPERAND, EXACT)
        if first is not None:
            through_B, through_K = tl.where(ends, through_B, 0.0), tl.where(ends, through_K, 0.0)
        dU = dot(tl.trans(rb), dY, OPERAND, EXACT) + through_B
        dZ = dot(tl.trans(X), dU, OPERAND, EXACT)
        dV = dot(tl.trans(rk), dY, OPERAND, EXACT) + dot(tl.trans(ak), dZ, OPERAND, EXACT) + through_K
        tl.store(d_v + of_values, dV, mask=inside)
        d_rb, d_rk = _scores(dY, U, seen, OPERAND, EXACT), _scores(dY, values_now, seen, OPERAND, EXACT)
        d_ab, d_ak = _scores(dZ, U, before, OPERAND, EXACT), _scores(dZ, values_now, before, OPERAND, EXACT)
        dB = dot(U_ends, D, OPERAND, EXACT) + dot(tl.trans(d_ab), A, OPERAND, EXACT)
        dB += dot(tl.trans(d_rb), R, OPERAND, EXACT)
        dK = dot(values_ends, D, OPERAND, EXACT) + dot(tl.trans(d_ak), A, OPERAND, EXACT)
        dK += dot(tl.trans(d_rk), R, OPERAND, EXACT)
        if first is not None:
            old = (segment == 0)[:, None]
            dZ, dY = tl.where(old, dZ, 0.0), tl.where(old, dY, 0.0)
            D = tl.where(last == 0, D, 0.0)
        entering = S * into[None, :]
        dR = dot(dY, entering, OPERAND, EXACT) + dot(d_rb, B, OPERAND, EXACT) + dot(d_rk, K, OPERAND, EXACT)
        dA = dot(dZ, entering, OPERAND, EXACT) + dot(d_ab, B, OPERAND, EXACT) + dot(d_ak, K, OPERAND, EXACT)
        D += dot(tl.trans(dZ), A, OPERAND, EXACT) + dot(tl.trans(dY), R, OPERAND, EXACT)
        D *= into[None, :]
        dR, dA = dR * tl.exp(here), dA * tl.exp(here - decay)
        dB, dK = dB * tl.exp(-here), dK * tl.exp(-here)
        tl.store(d_r + apart + of_keys, dR, mask=inside)
        tl.store(d_a + apart + of_keys, dA, mask=inside)
        tl.store(d_b + apart + of_keys, dB, mask=inside)
        tl.store(d_k + apart + of_keys, dK, mask=inside)
        # log_w of a step is in every decay that begins before it and ends at it or later.
        dA *= tl.load(a + of_keys, mask=inside, other=0.0)
        dR = dR * tl.load(r + of_keys, mask=inside, other=0.0) + dA
        dR -= dB * tl.load(b + of_keys, mask=inside, other=0.0) + dK * tl.load(k + of_keys, mask=inside, other=0.0)
        grown = tl.cumsum(dR, 0, reverse=True) - dA + slope[None, :]
        tl.store(d_log_w + apart + of_keys, grown, mask=inside)
        slope = tl.sum(S * D, 0)
    tl.store(d_state + head * N * N + matrix, D)
