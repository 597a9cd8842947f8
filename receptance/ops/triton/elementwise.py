"""What stands between matrix products and recurrences, forward and backward, each in one pass over its tensors.

A program has a tile of rows (tokens) and columns (channels; those of one head where a norm is over the head).  What is
computed is float32.  Gradients of weights are sums over tokens: each program leaves its own, and their sum is taken
afterwards, in an order that is always the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "delta_backward",
    "delta_forward",
    "lerps_backward",
    "lerps_forward",
    "read_out_backward",
    "read_out_forward",
    "squared_relu_backward",
    "squared_relu_forward",
]

# -e^{-1/2}, the strongest decay of RWKV-7, and the length below which a vector is not made longer.
STRONGEST = tl.constexpr(-0.6065306597126334)
SHORTEST = tl.constexpr(1e-12)


@triton.jit
def _wide(pointer, place, inside):
    return tl.load(pointer + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _tile(num_rows, width, columns, ROWS: tl.constexpr):
    """Places of this program's rows [ROWS, 1] and columns [1, COLUMNS] in memory, and which of them there are."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    return rows * width + columns, rows < num_rows


@triton.jit
def lerps_forward(
    start, end, weights, offsets, mixed, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """start, end [rows, width]; weights and mixed tuples; offsets [mixes, rows, width] or None."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    place, there = _tile(num_rows, width, columns, ROWS)
    known = columns < width
    inside = there & known
    x = _wide(start, place, inside)
    way = _wide(end, place, inside) - x
    for j in tl.static_range(len(weights)):
        weight = _wide(weights[j], columns, known)
        if offsets is not None:
            weight = weight + _wide(offsets, tl.cast(j, tl.int64) * num_rows * width + place, inside)
        tl.store(mixed[j] + place, x + way * weight, mask=inside)


@triton.jit
def lerps_backward(
    start, end, weights, offsets, gradients, to_start, to_end, to_offsets, sums, num_rows, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums [row blocks, mixes, width]."""
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    place, there = _tile(num_rows, width, columns, ROWS)
    known = columns < width
    inside = there & known
    way = _wide(end, place, inside) - _wide(start, place, inside)
    from_start, from_end = tl.zeros_like(way), tl.zeros_like(way)
    for j in tl.static_range(len(weights)):
        weight, gradient = _wide(weights[j], columns, known), _wide(gradients[j], place, inside)
        of_mix = tl.cast(j, tl.int64) * num_rows * width + place
        if offsets is not None:
            weight = weight + _wide(offsets, of_mix, inside)
        from_end += gradient * weight
        from_start += gradient - gradient * weight
        gradient *= way
        if offsets is not None:
            tl.store(to_offsets + of_mix, gradient, mask=inside)
        own = (tl.program_id(0) * len(weights) + j) * width + columns
        tl.store(sums + own, tl.sum(gradient, 0)[None, :], mask=known)
    tl.store(to_start + place, from_start, mask=inside)
    tl.store(to_end + place, from_end, mask=inside)


@triton.jit
def delta_forward(
    w, rate, k, v, v_first, share, w_0, a_0, k_k, k_a, v_0, log_w, written, a, b, new_v, num_rows, width,
    N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One head's columns, of which COLUMNS >= N is a power of two."""
    within = tl.arange(0, COLUMNS)[None, :]
    columns, known = tl.program_id(1) * N + within, within < N
    place, there = _tile(num_rows, width, columns, ROWS)
    inside = there & known
    decay = tl.sigmoid(_wide(w_0, columns, known) + _wide(w, place, inside))
    tl.store(log_w + place, decay * STRONGEST, mask=inside)
    speed = tl.sigmoid(_wide(a_0, columns, known) + _wide(rate, place, inside))
    key = _wide(k, place, inside)
    unit = key * _wide(k_k, columns, known)
    unit = unit / tl.maximum(tl.sqrt(tl.sum(unit * unit, 1)), SHORTEST)[:, None]
    tl.store(written + place, key * (1.0 + (speed - 1.0) * _wide(k_a, columns, known)), mask=inside)
    tl.store(a + place, -unit, mask=inside)
    tl.store(b + place, unit * speed, mask=inside)
    if v is not None:
        mix = tl.sigmoid(_wide(v_0, columns, known) + _wide(share, place, inside))
        value = _wide(v, place, inside)
        tl.store(new_v + place, value + (_wide(v_first, place, inside) - value) * mix, mask=inside)


@triton.jit
def delta_backward(
    w, rate, k, v, v_first, share, w_0, a_0, k_k, k_a, v_0, d_log_w, d_written, d_a, d_b, d_new_v,
    to_w, to_rate, to_k, to_v, to_v_first, to_share, sums, num_rows, width,
    N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums [row blocks, 5, width]: of w_0, a_0, k_k, k_a and v_0."""
    within = tl.arange(0, COLUMNS)[None, :]
    columns, known = tl.program_id(1) * N + within, within < N
    place, there = _tile(num_rows, width, columns, ROWS)
    inside = there & known
    own = sums + tl.program_id(0) * 5 * width + columns
    decay = tl.sigmoid(_wide(w_0, columns, known) + _wide(w, place, inside))
    of_w = _wide(d_log_w, place, inside) * STRONGEST * decay * (1.0 - decay)
    tl.store(to_w + place, of_w, mask=inside)
    tl.store(own, tl.sum(of_w, 0)[None, :], mask=known)

    speed = tl.sigmoid(_wide(a_0, columns, known) + _wide(rate, place, inside))
    key, bend = _wide(k, place, inside), _wide(k_k, columns, known)
    unit = key * bend
    length = tl.sqrt(tl.sum(unit * unit, 1))[:, None]
    unit = unit / tl.maximum(length, SHORTEST)
    of_b, of_written = _wide(d_b, place, inside), _wide(d_written, place, inside)
    of_unit = of_b * speed - _wide(d_a, place, inside)
    # Shorter vectors were not divided by their length.
    along = tl.where(length > SHORTEST, tl.sum(of_unit * unit, 1)[:, None], 0.0)
    of_kappa = (of_unit - along * unit) / tl.maximum(length, SHORTEST)
    tl.store(own + 2 * width, tl.sum(of_kappa * key, 0)[None, :], mask=known)

    strength = _wide(k_a, columns, known)
    tl.store(own + 3 * width, tl.sum(of_written * key * (speed - 1.0), 0)[None, :], mask=known)
    of_key = of_written * (1.0 + (speed - 1.0) * strength) + of_kappa * bend
    tl.store(to_k + place, of_key, mask=inside)
    of_rate = (of_b * unit + of_written * key * strength) * speed * (1.0 - speed)
    tl.store(to_rate + place, of_rate, mask=inside)
    tl.store(own + width, tl.sum(of_rate, 0)[None, :], mask=known)

    if v is not None:
        mix = tl.sigmoid(_wide(v_0, columns, known) + _wide(share, place, inside))
        of_v = _wide(d_new_v, place, inside)
        of_share = of_v * (_wide(v_first, place, inside) - _wide(v, place, inside)) * mix * (1.0 - mix)
        tl.store(to_v + place, of_v * (1.0 - mix), mask=inside)
        tl.store(to_v_first + place, of_v * mix, mask=inside)
        tl.store(to_share + place, of_share, mask=inside)
        tl.store(own + 4 * width, tl.sum(of_share, 0)[None, :], mask=known)


@triton.jit
def _normalised(x, inside, eps, N: tl.constexpr):
    """x [ROWS, COLUMNS] less its rows' means, divided by their standard deviations, and what it was divided by."""
    x = tl.where(inside, x - (tl.sum(x, 1) / N)[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(x * x, 1) / N + eps)[:, None]
    return x / deviation, deviation


@triton.jit
def read_out_forward(
    y, r, k, v, bonus, gate, weight, bias, out, num_rows, width, eps,
    N: tl.constexpr, BONUS_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    within = tl.arange(0, COLUMNS)[None, :]
    columns, known = tl.program_id(1) * N + within, within < N
    place, there = _tile(num_rows, width, columns, ROWS)
    inside = there & known
    score = tl.sum(_wide(r, place, inside) * _wide(k, place, inside) * _wide(bonus, columns, known), 1)[:, None]
    extra, x = score * _wide(v, place, inside), _wide(y, place, inside)
    if BONUS_FIRST:
        x += extra
    x, _ = _normalised(x, inside, eps, N)
    x = x * _wide(weight, columns, known) + _wide(bias, columns, known)
    if not BONUS_FIRST:
        x += extra
    if gate is not None:
        x *= _wide(gate, place, inside)
    tl.store(out + place, x, mask=inside)


@triton.jit
def read_out_backward(
    y, r, k, v, bonus, gate, weight, bias, d_out, to_y, to_r, to_k, to_v, to_gate, sums, num_rows, width, eps,
    N: tl.constexpr, BONUS_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums [row blocks, 3, width]: of bonus, weight and bias."""
    within = tl.arange(0, COLUMNS)[None, :]
    columns, known = tl.program_id(1) * N + within, within < N
    place, there = _tile(num_rows, width, columns, ROWS)
    inside = there & known
    own = sums + tl.program_id(0) * 3 * width + columns
    reader, key, value = _wide(r, place, inside), _wide(k, place, inside), _wide(v, place, inside)
    strength, scale = _wide(bonus, columns, known), _wide(weight, columns, known)
    score = tl.sum(reader * key * strength, 1)[:, None]
    x, of_out = _wide(y, place, inside), _wide(d_out, place, inside)
    if BONUS_FIRST:
        x += score * value
    x, deviation = _normalised(x, inside, eps, N)
    if gate is not None:
        result = x * scale + _wide(bias, columns, known)
        if not BONUS_FIRST:
            result += score * value
        tl.store(to_gate + place, of_out * result, mask=inside)
        of_out *= _wide(gate, place, inside)
    tl.store(own + width, tl.sum(of_out * x, 0)[None, :], mask=known)
    tl.store(own + 2 * width, tl.sum(of_out, 0)[None, :], mask=known)
    of_x = of_out * scale
    along, mean = (tl.sum(of_x * x, 1) / N)[:, None], (tl.sum(of_x, 1) / N)[:, None]
    of_x = tl.where(inside, (of_x - mean - x * along) / deviation, 0.0)
    tl.store(to_y + place, of_x, mask=inside)
    of_extra = of_x if BONUS_FIRST else of_out
    tl.store(to_v + place, of_extra * score, mask=inside)
    of_score = tl.sum(of_extra * value, 1)[:, None]
    tl.store(to_r + place, of_score * key * strength, mask=inside)
    tl.store(to_k + place, of_score * reader * strength, mask=inside)
    tl.store(own, tl.sum(of_score * reader * key, 0)[None, :], mask=known)


@triton.jit
def squared_relu_forward(x, y, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    positive = tl.maximum(_wide(x, place, place < count), 0.0)
    tl.store(y + place, positive * positive, mask=place < count)


@triton.jit
def squared_relu_backward(x, d_y, to_x, count, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < count
    tl.store(to_x + place, 2.0 * tl.maximum(_wide(x, place, inside), 0.0) * _wide(d_y, place, inside), mask=inside)
