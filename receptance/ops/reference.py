"""The recurrences as loops over time, in the papers' letters: the truth every other form is tested against.

Slow for long sequences, unbeatable for one token, and right on any device and dtype.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# RWKV-4's running maximum before any token: below every real exponent, and finite so that no difference of two is NaN.
EMPTY_MAX = -1e30


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T;  y_t = S_t r_t."""
    S, ys = state, []
    r, log_w, k, V, a, b = (x.to(S.dtype) for x in (r, log_w, k, v, a, b))
    w = log_w.exp()
    for t in range(v.shape[1]):
        S = _forget(S, first, t)
        S = S * row(w, t) + (S @ column(a, t)) * row(b, t) + column(V, t) * row(k, t)
        ys.append(S @ column(r, t))
    return _over_time(ys).to(v.dtype), S


def wkv6(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = S_{t-1} r_t;  S_t = S_{t-1} diag(w_t) + v_t k_t^T."""
    S, ys = state, []
    r, log_w, k, V = (x.to(S.dtype) for x in (r, log_w, k, v))
    w = log_w.exp()
    for t in range(v.shape[1]):
        S = _forget(S, first, t)
        ys.append(S @ column(r, t))
        S = S * row(w, t) + column(V, t) * row(k, t)
    return _over_time(ys).to(v.dtype), S


def wkv4(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The weighted mean of RWKV-4, with numerator and denominator scaled by the largest exponent so far."""
    mean, ys = Mean(*state.unbind(1)), []
    log_w, u, k, V = (x.to(state.dtype) for x in (log_w, u, k, v))
    for t in range(v.shape[1]):
        if first is not None:
            mean = forget_mean(mean, first[:, t, None])
        ys.append(read_mean(mean, u + k[:, t], V[:, t]))
        mean = add_to_mean(mean, log_w[:, t], k[:, t], V[:, t])
    return torch.stack(ys, 1).to(v.dtype), torch.stack(mean, 1)


def token_shift(
    x: Tensor, last: Tensor, lengths: Tensor | None = None, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """prev_t = x_{t-1}, and 0 at the start of a document."""
    prev, remembered = last, []
    prevs = []
    for t in range(x.shape[1]):
        prevs.append(prev if first is None else prev.masked_fill(first[:, t, None], 0))
        prev = x[:, t]
        remembered.append(prev)
    if lengths is None:
        return torch.stack(prevs, 1), prev
    ends = [remembered[n - 1][i] if n else last[i] for i, n in enumerate(lengths.tolist())]
    return torch.stack(prevs, 1), torch.stack(ends)


class Mean(NamedTuple):
    """RWKV-4's running weighted mean: numerator and denominator, both divided by e^top."""

    num: Tensor
    den: Tensor
    top: Tensor


def read_mean(mean: Mean, exponent: Tensor, v: Tensor) -> Tensor:
    """The mean with one more value `v` of weight e^exponent; 0 where nothing has any weight."""
    num, den, top = mean
    q = torch.maximum(top, exponent)
    kept, new = (top - q).exp(), (exponent - q).exp()
    weight = kept * den + new
    nothing = weight == 0
    return ((kept * num + new * v) / weight.masked_fill(nothing, 1)).masked_fill(nothing, 0)


def add_to_mean(mean: Mean, log_w: Tensor, k: Tensor, v: Tensor) -> Mean:
    """The mean after one step: what is there decays by e^log_w, `v` comes in with weight e^k."""
    num, den, top = mean
    q = torch.maximum(top + log_w, k)
    kept, new = (top + log_w - q).exp(), (k - q).exp()
    return Mean(kept * num + new * v, kept * den + new, q)


def forget_mean(mean: Mean, where: Tensor) -> Mean:
    """The empty mean where `where` holds."""
    num, den, top = mean
    return Mean(num.masked_fill(where, 0), den.masked_fill(where, 0), top.masked_fill(where, EMPTY_MAX))


def column(x: Tensor, t: int) -> Tensor:
    """x_t as a column: [B, T, H, N] -> [B, H, N, 1]."""
    return x[:, t, :, :, None]


def row(x: Tensor, t: int) -> Tensor:
    """x_t as a row: [B, T, H, N] -> [B, H, 1, N]."""
    return x[:, t, :, None, :]


def _forget(S: Tensor, first: Tensor | None, t: int) -> Tensor:
    return S if first is None else S.masked_fill(first[:, t, None, None, None], 0)


def _over_time(ys: list[Tensor]) -> Tensor:
    """Columns [B, H, N, 1], one a step -> [B, T, H, N]."""
    return torch.stack(ys, 1)[..., 0]
