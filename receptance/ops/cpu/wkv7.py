"""RWKV-7's delta rule, on one head and a chunk of at most STEPS tokens: a step forward, the same again, a step back.

Every argument is memory of `rows`: of r, w, k, v, a, b one row a token, w already exponentiated.
Forward the state lies transposed, S[key, value]: then a step needs no sum over a row, and a number of k, w, a, b or r
meets all values at once.  Backward it lies as everywhere, S[value, key], for most gradients are sums over the values.
The mathematics is in the README of `ops`.
"""

from __future__ import annotations

from typing import Any

from .jit import kernel
from .rows import filled, load, store, total

__all__ = ["backward_step", "forward_steps", "replay"]


@kernel
def forward_steps(
    S: Any, first: Any, r: Any, w: Any, k: Any, v: Any, a: Any, b: Any, y: Any, u: Any, num_steps: int, shape: Any
) -> None:
    """S [key, value], changed in place; writes y_t = S_t r_t and u_t = S_{t-1} a_t."""
    read = filled(0.0, shape)
    for j in range(S.shape[0]):
        read = read + load(S, j, shape) * a[0, j]
    for q in range(num_steps):
        if first[q]:
            S[:] = 0
            read = filled(0.0, shape)
        store(u, q, read)
        value, out, next_read = load(v, q, shape), filled(0.0, shape), filled(0.0, shape)
        for j in range(S.shape[0]):
            column = load(S, j, shape) * w[q, j] + (read * b[q, j] + value * k[q, j])
            store(S, j, column)
            out = out + column * r[q, j]
            # What the next step reads, while the column is at hand; behind the last step there is room for any a.
            next_read = next_read + column * a[q + 1, j]
        store(y, q, out)
        read = next_read


@kernel
def replay(
    S: Any, distance: int, first: Any, w: Any, k: Any, v: Any, b: Any, u: Any, N: int, num_steps: int, shape: Any
) -> None:
    """All states of the chunk: S_t, `distance` rows after S_{t-1}, as [value, key], from the first one."""
    for i in range(N):
        row = load(S, i, shape)
        for q in range(num_steps):
            if first[q]:
                row = filled(0.0, shape)
            row = row * load(w, q, shape) + (u[q, i] * load(b, q, shape) + v[q, i] * load(k, q, shape))
            store(S, (q + 1) * distance + i, row)


@kernel
def backward_step(
    D: Any, S: Any, before: int, after: int, q: int, x: Any, u: Any, dy: Any, gradients: Any, N: int, shape: Any
) -> None:
    """D, the gradient of S_t [value, key] but for what y_t adds, becomes that of S_{t-1}.

    S_{t-1} and S_t are the rows of S from `before` and `after` on.  x and gradients hold r, w, k, v, a, b; that of w
    is taken to log w.
    """
    r, w, k = load(x[0], q, shape), load(x[1], q, shape), load(x[2], q, shape)
    a, b, v, dv = load(x[4], q, shape), load(x[5], q, shape), x[3], gradients[3]
    dr = dw = dk = da = db = filled(0.0, shape)
    for i in range(N):
        old = load(S, before + i, shape)
        d = load(D, i, shape) + dy[q, i] * r
        du = total(d * b)
        dv[q, i] = total(d * k)
        dr = dr + dy[q, i] * load(S, after + i, shape)
        dw = dw + d * old
        dk = dk + v[q, i] * d
        db = db + u[q, i] * d
        da = da + du * old
        store(D, i, d * w + du * a)
    store(gradients[0], q, dr)
    store(gradients[1], q, dw * w)
    store(gradients[2], q, dk)
    store(gradients[4], q, da)
    store(gradients[5], q, db)
