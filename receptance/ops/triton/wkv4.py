"""RWKV-4's weighted mean, forward and backward: one program walks the time of some channels, a chunk at a time.

Within a chunk all steps are taken at once, by an associative scan: two means join as in section 1 of the README of
`ops`.  A mean is (num, den, top), num and den divided by e^top.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward", "forward"]

EMPTY_TOP = tl.constexpr(-1e30)


@triton.jit
def _join(log_w, num, den, top, new_log_w, new_num, new_den, new_top):
    """An older mean and a newer one, with by how much each has the means before it decay."""
    faded = top + new_log_w
    q = tl.maximum(faded, new_top)
    old, new = tl.exp(faded - q), tl.exp(new_top - q)
    return log_w + new_log_w, old * num + new * new_num, old * den + new * new_den, q


@triton.jit
def _weighted(num, den, top, bonus, v):
    """What a step reads of a mean and its own value, and the two weights and their sum, as seen from the larger."""
    q = tl.maximum(top, bonus)
    old, new = tl.exp(top - q), tl.exp(bonus - q)
    total = old * den + new
    # An ended row that meets an empty mean has no weight at all.
    total = tl.where(total == 0.0, 1.0, total)
    return (old * num + new * v) / total, old / total, new / total


@triton.jit
def _found(log_w, k, v, first, num, den, top, t, T, of_log_w, place, inside):
    """The means that the steps t [C] of a chunk find, which begins with the mean (num, den, top) [A].

    The step before each is added to what that one found; where a document begins, the empty mean is found.
    """
    steps = tl.arange(0, t.shape[0])[:, None]
    begins, there = steps == 0, inside & (steps > 0)
    decay = tl.load(log_w + of_log_w, mask=there, other=0.0).to(tl.float32)
    key = tl.load(k + place, mask=there, other=float("-inf")).to(tl.float32)
    value = tl.load(v + place, mask=there, other=0.0).to(tl.float32)
    is_real = key > EMPTY_TOP
    new_num, new_den = tl.where(is_real, value, 0.0), tl.where(is_real, 1.0, 0.0)
    new_top = tl.where(is_real, key, EMPTY_TOP)
    new_num, new_den = tl.where(begins, num[None, :], new_num), tl.where(begins, den[None, :], new_den)
    new_top = tl.where(begins, top[None, :], new_top)
    if first is not None:
        forgets = tl.load(first + t, mask=t < T, other=0).to(tl.int1)[:, None]
        decay = tl.where(forgets, float("-inf"), decay)
        new_num, new_den = tl.where(forgets, 0.0, new_num), tl.where(forgets, 0.0, new_den)
        new_top = tl.where(forgets, EMPTY_TOP, new_top)
    _, num, den, top = tl.associative_scan((decay, new_num, new_den, new_top), 0, _join)
    return num, den, top


@triton.jit
def _row(x, which):
    """One row of x [C, A], where `which` is true."""
    return tl.sum(tl.where(which, x, 0.0), 0)


@triton.jit
def forward(
    log_w, u, k, v, state, first, y, end, kept, T, A,
    SHARED: tl.constexpr, C: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """y and the last state; where there is room for them, the states that enter the chunks, kept [B, n, 3, A].

    SHARED: log_w is [A], the same for all steps.
    """
    row, num_chunks = tl.program_id(0).to(tl.int64), tl.cdiv(T, C)
    steps, columns = tl.arange(0, C), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = columns < A
    of_state = state + row * 3 * A + columns
    num, den = tl.load(of_state, mask=known, other=0.0), tl.load(of_state + A, mask=known, other=0.0)
    top = tl.load(of_state + 2 * A, mask=known, other=EMPTY_TOP)
    bonus = tl.load(u + columns, mask=known, other=0.0).to(tl.float32)[None, :]
    marks = first
    if first is not None:
        marks = first + row * T
    for chunk in range(num_chunks):
        t = chunk * C + steps
        place = (row * T + t)[:, None] * A + columns[None, :]
        inside = (t < T)[:, None] & known[None, :]
        of_log_w = (0 * t)[:, None] + columns[None, :] if SHARED else place
        if kept is not None:
            own = kept + ((row * num_chunks + chunk) * 3) * A + columns
            tl.store(own, num, mask=known)
            tl.store(own + A, den, mask=known)
            tl.store(own + 2 * A, top, mask=known)
        before = place - A
        nums, dens, tops = _found(
            log_w, k, v, marks, num, den, top, t, T, of_log_w if SHARED else of_log_w - A, before, inside
        )
        key = tl.load(k + place, mask=inside, other=float("-inf")).to(tl.float32)
        value = tl.load(v + place, mask=inside, other=0.0).to(tl.float32)
        out, _, _ = _weighted(nums, dens, tops, bonus + key, value)
        tl.store(y + place, out, mask=inside)
        # The last step of the chunk that there is, added to what it found.
        is_last = (t == tl.minimum(T, (chunk + 1) * C) - 1)[:, None]
        decay = tl.load(log_w + of_log_w, mask=inside, other=0.0).to(tl.float32)
        is_real = key > EMPTY_TOP
        _, nums, dens, tops = _join(
            decay, nums, dens, tops,
            decay, tl.where(is_real, value, 0.0), tl.where(is_real, 1.0, 0.0), tl.where(is_real, key, EMPTY_TOP),
        )  # fmt: skip
        num, den, top = _row(nums, is_last), _row(dens, is_last), _row(tops, is_last)
    of_end = end + row * 3 * A + columns
    tl.store(of_end, num, mask=known)
    tl.store(of_end + A, den, mask=known)
    tl.store(of_end + 2 * A, top, mask=known)


@triton.jit
def _follow(keep_num, num, keep_den, den, keep_top, top, more_num, new_num, more_den, new_den, more_top, new_top):
    """Two steps x <- keep x + new of three numbers as one."""
    return (
        keep_num * more_num, more_num * num + new_num,
        keep_den * more_den, more_den * den + new_den,
        keep_top * more_top, more_top * top + new_top,
    )  # fmt: skip


@triton.jit
def backward(
    log_w, u, k, v, first, kept, end, d_y, d_end, d_log_w, d_u, d_k, d_v, d_state, T, A,
    SHARED: tl.constexpr, C: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradients; that of u for each row, d_u [B, A].

    What is carried backward are those of num and den, times e^top: they are added to and multiplied by at most 1.
    """
    row, num_chunks = tl.program_id(0).to(tl.int64), tl.cdiv(T, C)
    steps, columns = tl.arange(0, C), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = columns < A
    bonus = tl.load(u + columns, mask=known, other=0.0).to(tl.float32)[None, :]
    marks = first
    if first is not None:
        marks = first + row * T
    of_end, of_d_end = end + row * 3 * A + columns, d_end + row * 3 * A + columns
    to_num, to_den = tl.load(of_d_end, mask=known, other=0.0), tl.load(of_d_end + A, mask=known, other=0.0)
    # The last num and den are what they are because of the last top.
    to_top = tl.load(of_d_end + 2 * A, mask=known, other=0.0)
    to_top -= to_num * tl.load(of_end, mask=known, other=0.0) + to_den * tl.load(of_end + A, mask=known, other=0.0)
    to_bonus = tl.zeros((COLUMNS,), tl.float32)
    for turn in range(num_chunks):
        chunk = num_chunks - 1 - turn
        t = chunk * C + steps
        place = (row * T + t)[:, None] * A + columns[None, :]
        inside = (t < T)[:, None] & known[None, :]
        of_log_w = (0 * t)[:, None] + columns[None, :] if SHARED else place
        own = kept + ((row * num_chunks + chunk) * 3) * A + columns
        num, den = tl.load(own, mask=known, other=0.0), tl.load(own + A, mask=known, other=0.0)
        top = tl.load(own + 2 * A, mask=known, other=EMPTY_TOP)
        nums, dens, tops = _found(
            log_w, k, v, marks, num, den, top, t, T, of_log_w if SHARED else of_log_w - A, place - A, inside
        )
        decay = tl.load(log_w + of_log_w, mask=inside, other=0.0).to(tl.float32)
        key = tl.load(k + place, mask=inside, other=float("-inf")).to(tl.float32)
        value = tl.load(v + place, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(d_y + place, mask=inside, other=0.0).to(tl.float32)
        out, old, new = _weighted(nums, dens, tops, bonus + key, value)
        through_bonus = dy * (value - out) * new
        to_bonus += tl.sum(through_bonus, 0)

        # A step makes of what it found: e^(faded - q) of it, and e^(key - q) of its own.
        is_real = key > EMPTY_TOP
        real_key, faded = tl.where(is_real, key, EMPTY_TOP), tops + decay
        q = tl.maximum(faded, real_key)
        stays, adds = tl.exp(faded - q), tl.where(is_real, tl.exp(real_key - q), 0.0)
        leads = tl.where(faded > real_key, 1.0, tl.where(faded == real_key, 0.5, 0.0))
        leads = tl.where(is_real, leads, 1.0)
        # What leaves each step backward, of what entered it: x <- stays x + read, and nothing where a document begins.
        passes = tl.full((C, COLUMNS), 1.0, tl.float32)
        if first is not None:
            forgets = tl.load(marks + t, mask=t < T, other=0).to(tl.int1)[:, None]
            passes = tl.where(forgets, 0.0, 1.0)
        is_last = (steps == C - 1)[:, None]
        keep, keep_top = passes * stays, passes * leads
        read_num, read_den = passes * old * dy, -passes * old * dy * out
        start_num = tl.where(is_last, keep * to_num[None, :], 0.0)
        start_den = tl.where(is_last, keep * to_den[None, :], 0.0)
        start_top = tl.where(is_last, keep_top * to_top[None, :], 0.0)
        _, left_num, _, left_den, _, left_top = tl.associative_scan(
            (keep, read_num + start_num, keep, read_den + start_den, keep_top, start_top), 0, _follow, reverse=True
        )
        # What enters a step is what left the one behind it.
        behind = tl.minimum(steps + 1, C - 1)[:, None]
        behind = tl.broadcast_to(behind, (C, COLUMNS))
        in_num = tl.where(is_last, to_num[None, :], tl.gather(left_num, behind, 0))
        in_den = tl.where(is_last, to_den[None, :], tl.gather(left_den, behind, 0))
        in_top = tl.where(is_last, to_top[None, :], tl.gather(left_top, behind, 0))

        to_v = dy * new + adds * in_num
        to_k = through_bonus + adds * (value * in_num + in_den) + (1.0 - leads) * in_top
        to_log_w = stays * (nums * in_num + dens * in_den) + leads * in_top
        tl.store(d_v + place, to_v, mask=inside)
        tl.store(d_k + place, to_k, mask=inside)
        tl.store(d_log_w + place, to_log_w, mask=inside)
        is_first = (steps == 0)[:, None]
        to_num, to_den, to_top = _row(left_num, is_first), _row(left_den, is_first), _row(left_top, is_first)
    of_state = d_state + row * 3 * A + columns
    of_start = kept + row * num_chunks * 3 * A + columns
    num, den = tl.load(of_start, mask=known, other=0.0), tl.load(of_start + A, mask=known, other=0.0)
    tl.store(of_state, to_num, mask=known)
    tl.store(of_state + A, to_den, mask=known)
    tl.store(of_state + 2 * A, to_top + to_num * num + to_den * den, mask=known)
    tl.store(d_u + row * A + columns, to_bonus, mask=known)
