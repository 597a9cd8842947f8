"""RWKV-4's weighted mean: some channels of a row through all of the time, forward and backward.

    forward.run(numbers, tensors, num_blocks)              # see the words of a job below

A step weighs two things, what is there and what comes in, by exponentials whose larger one is made 1: a single exp of
minus their distance.  The loops go over channels that lie side by side, so that they are vectorised; the mathematics is
in the README of `ops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference import EMPTY_MAX
from .bits import array_at
from .blocks import BlockKernel, load, store
from .chunks import STEPS
from .jit import kernel
from .maths import exp

__all__ = ["backward", "forward"]

# Numbers of a job: TOGETHER channels are a block; ONE_DECAY: log_w is [A], the same for all tokens.
NUM_STEPS, WIDTH, NUM_KEPT, TOGETHER, ONE_DECAY = range(5)
# Tensors of both; first as float32, dy None forward; kept, the means every STEPS steps [B, NUM_KEPT, 3, A] or None.
LOG_W, U, K, V, FIRST, DY, KEPT = range(5, 19, 2)
# Forward: the state, the new one, y.
START, END, Y = range(19, 25, 2)
# Backward: gradients of the new state, of the state, of log_w, k and v, and of u [B, A].
D_END, D_START, D_LOG_W, _, _, DU = range(19, 31, 2)
_ZERO, _HALF, _ONE, _EMPTY = np.float32(0), np.float32(0.5), np.float32(1), np.float32(EMPTY_MAX)


@kernel
def _step(mean: Any, log_w: Any, u: Any, k: Any, v: Any, y: Any) -> None:
    """y = the mean with a bonus of u for this value; then the mean after it, in place."""
    num, den, top = mean[0], mean[1], mean[2]
    for i in range(y.size):
        distance = top[i] - (u[i] + k[i])
        small = exp(-abs(distance))
        kept, new = (_ONE, small) if distance >= _ZERO else (small, _ONE)
        weight = kept * den[i] + new
        y[i] = (kept * num[i] + new * v[i]) / weight if weight != _ZERO else _ZERO
        faded = top[i] + log_w[i]
        distance = faded - k[i]
        small = exp(-abs(distance))
        kept, new = (_ONE, small) if distance >= _ZERO else (small, _ONE)
        num[i] = kept * num[i] + new * v[i]
        den[i] = kept * den[i] + new
        top[i] = faded if distance >= _ZERO else k[i]


@kernel
def _add(mean: Any, log_w: Any, k: Any, v: Any, after: Any) -> None:
    """The mean [3, size] after a step; as in `_step`."""
    for i in range(k.size):
        faded = mean[2, i] + log_w[i]
        distance = faded - k[i]
        small = exp(-abs(distance))
        kept, new = (_ONE, small) if distance >= _ZERO else (small, _ONE)
        after[0, i] = kept * mean[0, i] + new * v[i]
        after[1, i] = kept * mean[1, i] + new
        after[2, i] = faded if distance >= _ZERO else k[i]


@kernel
def _forget(mean: Any) -> None:
    mean[:2] = _ZERO
    mean[2] = _EMPTY


@kernel
def _step_back(mean: Any, g: Any, x: Any, u: Any, gradients: Any) -> None:
    """g [3, size], the gradient of the mean after a step, becomes that of `mean`, the one before.

    x is log_w, k, v and dy of the step, gradients those of log_w, k, v, and of u, which is added to.
    """
    log_w, k, v, dy = x[0], x[1], x[2], x[3]
    d_log_w, dk, dv, du = gradients[0], gradients[1], gradients[2], gradients[3]
    for i in range(u.size):
        num, den, top = mean[0, i], mean[1, i], mean[2, i]
        g_num, g_den = g[0, i], g[1, i]
        # The step: num' = kept num + new v, den' = kept den + new, both divided by e^top' with top' = max(faded, k).
        distance = top + log_w[i] - k[i]
        small = exp(-abs(distance))
        kept, new = (_ONE, small) if distance >= _ZERO else (small, _ONE)
        g_top = g[2, i] - g_num * (kept * num + new * v[i]) - g_den * (kept * den + new)
        share = _ONE if distance > _ZERO else (_HALF if distance == _ZERO else _ZERO)
        g_faded = (g_num * num + g_den * den) * kept + g_top * share
        g_k = (g_num * v[i] + g_den) * new + g_top * (_ONE - share)
        # The output: of the mean with weight e^(u + k) for v; dividing numerator and denominator changes nothing.
        distance = top - (u[i] + k[i])
        small_out = exp(-abs(distance))
        kept_out, new_out = (_ONE, small_out) if distance >= _ZERO else (small_out, _ONE)
        weight = kept_out * den + new_out
        inverse = _ONE / weight if weight != _ZERO else _ZERO
        y = (kept_out * num + new_out * v[i]) * inverse
        g_old, g_new = dy[i] * kept_out * inverse, dy[i] * new_out * inverse
        g_exponent = g_new * (v[i] - y)
        d_log_w[i], du[i] = g_faded, du[i] + g_exponent
        dk[i], dv[i] = g_k + g_exponent, g_num * new + g_new
        g[0, i], g[1, i], g[2, i] = g_num * kept + g_old, g_den * kept - g_old * y, g_faded - g_exponent


@kernel
def _channels_of(job: Any, block: int) -> Any:
    """The row, the first channel and the number of channels of a block."""
    groups = (job[WIDTH] + job[TOGETHER] - 1) // job[TOGETHER]
    channel = block % groups * job[TOGETHER]
    return block // groups, channel, min(job[TOGETHER], job[WIDTH] - channel)


@kernel
def _read_token(x: Any, job: Any, n: int, t: int, channel: int, size: int) -> Any:
    """x[:3] = log_w, k and v of a token, x[3] = dy if there is one; whether a document begins there."""
    token = n * job[NUM_STEPS] + t
    load(x, 0, job, LOG_W, channel if job[ONE_DECAY] else token * job[WIDTH] + channel, size)
    load(x, 1, job, K, token * job[WIDTH] + channel, size)
    load(x, 2, job, V, token * job[WIDTH] + channel, size)
    if job[DY]:
        load(x, 3, job, DY, token * job[WIDTH] + channel, size)
    return job[FIRST] and array_at(job[FIRST] + 4 * token, (1,), np.float32)[0]


@kernel
def _read_mean(mean: Any, job: Any, tensor: int, number: int, channel: int, size: int) -> None:
    """mean [3, size] = some channels of a mean of [.., 3, A]."""
    for part in range(3):
        load(mean, part, job, tensor, (3 * number + part) * job[WIDTH] + channel, size)


@kernel
def _write_mean(mean: Any, job: Any, tensor: int, number: int, channel: int, size: int) -> None:
    for part in range(3):
        store(job, tensor, (3 * number + part) * job[WIDTH] + channel, mean, part, size)


@BlockKernel
def forward(address: int, size: int, block: int) -> None:
    job = array_at(address, (size,), np.int64)
    n, channel, width = _channels_of(job, block)
    x, u, y = np.empty((4, width), np.float32), np.empty((1, width), np.float32), np.empty((1, width), np.float32)
    mean = np.empty((3, width), np.float32)
    load(u, 0, job, U, channel, width)
    _read_mean(mean, job, START, n, channel, width)
    for t in range(job[NUM_STEPS]):
        if job[KEPT] and t % STEPS == 0:
            _write_mean(mean, job, KEPT, n * job[NUM_KEPT] + t // STEPS, channel, width)
        if _read_token(x, job, n, t, channel, width):
            _forget(mean)
        _step(mean, x[0], u[0], x[1], x[2], y[0])
        store(job, Y, (n * job[NUM_STEPS] + t) * job[WIDTH] + channel, y, 0, width)
    _write_mean(mean, job, END, n, channel, width)


@BlockKernel
def backward(address: int, size: int, block: int) -> None:
    job = array_at(address, (size,), np.int64)
    n, channel, width = _channels_of(job, block)
    means, g = np.empty((STEPS + 1, 3, width), np.float32), np.empty((3, width), np.float32)
    x, gradients = np.empty((STEPS, 4, width), np.float32), np.zeros((4, width), np.float32)
    u, first = np.empty((1, width), np.float32), np.zeros(STEPS, np.bool_)
    load(u, 0, job, U, channel, width)
    _read_mean(g, job, D_END, n, channel, width)
    for c in range(job[NUM_KEPT] - 1, -1, -1):
        num_steps = min(STEPS, job[NUM_STEPS] - c * STEPS)
        _read_mean(means[0], job, KEPT, n * job[NUM_KEPT] + c, channel, width)
        for q in range(num_steps):
            first[q] = _read_token(x[q], job, n, c * STEPS + q, channel, width) != 0
            if first[q]:
                _forget(means[q])
            _add(means[q], x[q, 0], x[q, 1], x[q, 2], means[q + 1])
        for q in range(num_steps - 1, -1, -1):
            _step_back(means[q], g, x[q], u[0], gradients)
            start = (n * job[NUM_STEPS] + c * STEPS + q) * job[WIDTH] + channel
            for m in range(3):
                store(job, D_LOG_W + 2 * m, start, gradients, m, width)
            if first[q]:
                g[:] = _ZERO
    store(job, DU, n * job[WIDTH] + channel, gradients, 3, width)
    _write_mean(g, job, D_START, n, channel, width)
