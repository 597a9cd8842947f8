"""The recurrences for one token, on states that are changed in place.  The letters are those of `ops`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import kernel
from .maths import exp


@kernel
def wkv7_step(y: Any, r: Any, log_w: Any, k: Any, v: Any, a: Any, b: Any, S: Any, w: Any) -> None:
    """One head: vectors [N], S [N, N] (value, key); w [N] is room for the decay."""
    N = y.size
    for j in range(N):
        w[j] = exp(log_w[j])
    for i in range(N):
        read = np.float32(0)
        for j in range(N):
            read += S[i, j] * a[j]
        out = np.float32(0)
        for j in range(N):
            new = S[i, j] * w[j] + read * b[j] + v[i] * k[j]
            S[i, j] = new
            out += new * r[j]
        y[i] = out


@kernel
def wkv6_step(y: Any, r: Any, log_w: Any, k: Any, v: Any, S: Any, w: Any) -> None:
    """One head: vectors [N], S [N, N] (value, key), read before it is written; w [N] is room for the decay."""
    N = y.size
    for j in range(N):
        w[j] = exp(log_w[j])
    for i in range(N):
        out = np.float32(0)
        for j in range(N):
            out += S[i, j] * r[j]
            S[i, j] = S[i, j] * w[j] + v[i] * k[j]
        y[i] = out


@kernel
def wkv4_step(y: Any, log_w: Any, u: Any, k: Any, v: Any, state: Any) -> None:
    """All channels of a row: vectors [A], state [3, A] = numerator, denominator, maximum."""
    for i in range(y.size):
        num, den, top = state[0, i], state[1, i], state[2, i]
        q = max(top, u[i] + k[i])
        old, new = exp(top - q), exp(u[i] + k[i] - q)
        y[i] = (old * num + new * v[i]) / (old * den + new)
        q = max(top + log_w[i], k[i])
        old, new = exp(top + log_w[i] - q), exp(k[i] - q)
        state[0, i] = old * num + new * v[i]
        state[1, i] = old * den + new
        state[2, i] = q
