"""The gated recurrence of RWKV-5 and 6, on one head and a chunk of at most STEPS tokens; all is as in `wkv7`."""

from __future__ import annotations

from typing import Any

from .jit import kernel
from .rows import filled, load, store, total

__all__ = ["backward_step", "forward_steps", "replay"]


@kernel
def forward_steps(S: Any, first: Any, r: Any, w: Any, k: Any, v: Any, y: Any, num_steps: int, shape: Any) -> None:
    """S [key, value], changed in place; writes y_t = S_{t-1} r_t."""
    for q in range(num_steps):
        if first[q]:
            S[:] = 0
        value, out = load(v, q, shape), filled(0.0, shape)
        for j in range(S.shape[0]):
            column = load(S, j, shape)
            out = out + column * r[q, j]
            store(S, j, column * w[q, j] + value * k[q, j])
        store(y, q, out)


@kernel
def replay(S: Any, distance: int, first: Any, w: Any, k: Any, v: Any, N: int, num_steps: int, shape: Any) -> None:
    """All states of the chunk: S_t, `distance` rows after S_{t-1}, as [value, key], from the first one."""
    for i in range(N):
        row = load(S, i, shape)
        for q in range(num_steps):
            if first[q]:
                row = filled(0.0, shape)
            row = row * load(w, q, shape) + v[q, i] * load(k, q, shape)
            store(S, (q + 1) * distance + i, row)


@kernel
def backward_step(D: Any, S: Any, before: int, q: int, x: Any, dy: Any, gradients: Any, N: int, shape: Any) -> None:
    """D, the gradient of S_t [value, key], becomes that of S_{t-1}, whose rows in S begin at `before`.

    x and gradients hold r, w, k, v; the gradient of w is taken to log w.
    """
    r, w, k, v, dv = load(x[0], q, shape), load(x[1], q, shape), load(x[2], q, shape), x[3], gradients[3]
    dr = dw = dk = filled(0.0, shape)
    for i in range(N):
        d, old = load(D, i, shape), load(S, before + i, shape)
        dv[q, i] = total(d * k)
        dr = dr + dy[q, i] * old
        dw = dw + d * old
        dk = dk + v[q, i] * d
        store(D, i, d * w + dy[q, i] * r)
    store(gradients[0], q, dr)
    store(gradients[1], q, dw * w)
    store(gradients[2], q, dk)
