"""The recurrences in matrix products over chunks of time: differentiable, on any device, fast enough to train with.

The derivations are in README.md beside this file.  All three cut time into chunks, do what lies inside a chunk for all
chunks at once, and walk over the chunks only to carry the state.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .reference import EMPTY_MAX, Mean, add_to_mean, forget_mean, read_mean

CHUNK7 = 32
CHUNK6 = 32


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-7's delta rule; inside a chunk it is one triangular system (README, section 3)."""
    T, dtype = v.shape[1], v.dtype
    size = min(CHUNK7, T)
    r, log_w, k, v, a, b = (_fold(x, size, state.dtype) for x in (r, log_w, k, v, a, b))  # [B, H, n, C, N]
    L = log_w.cumsum(-2)
    to_here, from_here = L.exp(), (-L).exp()
    R, A, B, K = r * to_here, a * (L - log_w).exp(), b * from_here, k * from_here
    eye_N, segment = torch.eye(v.shape[-1], dtype=v.dtype, device=v.device), None
    if first is not None:
        segment = _segment(first, size)[:, None]
    rb, rk, ab, ak = _grams(R, A, B, K, segment)
    if segment is not None:
        old, last, keep = _masks(segment)
        R, A, B, K, eye_N = R * old, A * old, B * last, K * last, eye_N * keep

    # (I - ab) U = A S^T + ak V is what the steps of the chunk read through a; b writes it: U = US S^T + UV.
    system = torch.eye(size, dtype=v.dtype, device=v.device) - ab
    solved = torch.linalg.solve_triangular(system, torch.cat([A, ak @ v], -1), upper=False, unitriangular=True)
    US, UV = solved.chunk(2, -1)
    UV_V = torch.cat([UV, v], -2)

    end = to_here[..., -1:, :]
    entering, state = _walk(state, (eye_N + US.mT @ B) * end, (UV_V.mT @ torch.cat([B, K], -2)) * end)
    y = (R + rb @ US) @ entering.mT + torch.cat([rb, rk], -1) @ UV_V
    return _unfold(y, T).to(dtype), state


def wkv6(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated recurrence for any decay, by doubling: no decay is ever divided by (README, section 2)."""
    T, dtype = v.shape[1], v.dtype
    size = min(CHUNK6, 2 ** (T - 1).bit_length())
    r, log_w, k, v = (_fold(x, size, state.dtype) for x in (r, log_w, k, v))
    segment = None if first is None else _segment(first, size)[:, None]
    y, reads, writes, kept = _double(r, log_w.exp(), k, v, segment)
    if segment is not None:
        old, last, keep = _masks(segment)
        reads, writes, kept = reads * old, writes * last, kept * keep
    entering, state = _walk_diagonal(state, kept, v.mT @ writes)
    y = y + reads @ entering.mT
    return _unfold(y, T).to(dtype), state


def wkv4(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-4's weighted mean as a scan in two levels: all chunks step together, then their results are carried."""
    T, dtype = v.shape[1], v.dtype
    size = max(1, round(T**0.5))
    chunks = -(-T // size)
    pad = chunks * size - T
    log_w, k, v = (x.to(state.dtype) for x in (log_w, k, v))
    u = u.to(state.dtype)
    log_w, v = (F.pad(x, (0, 0, 0, pad)).unflatten(1, (chunks, size)) for x in (log_w, v))
    k = F.pad(k, (0, 0, 0, pad), value=-torch.inf).unflatten(1, (chunks, size))  # [B, n, c, A]
    start = None if first is None else F.pad(first, (0, pad)).unflatten(1, (chunks, size))[..., None]

    # Within every chunk from nothing; `means[t]` is what step t of each chunk finds.
    zero = torch.zeros_like(v[:, :, 0])
    local = Mean(zero, zero, torch.full_like(zero, EMPTY_MAX))
    means: list[Mean] = []
    log_ws, ks, vs = log_w.unbind(2), k.unbind(2), v.unbind(2)
    for t in range(size):
        if start is not None:
            local = forget_mean(local, start[:, :, t])
        means.append(local)
        local = add_to_mean(local, log_ws[t], ks[t], vs[t])

    # From chunk to chunk: what comes in has decayed by the whole chunk and joins what the chunk found.
    total = log_w.sum(2).unbind(1)
    found = [Mean(*parts) for parts in zip(*(part.unbind(1) for part in local), strict=True)]
    carried, entering = Mean(*state.unbind(1)), []
    for i in range(chunks):
        entering.append(carried)
        if start is not None:
            carried = forget_mean(carried, start[:, i].any(1))
        carried = _join_means(carried, total[i], found[i])

    incoming = Mean(*(torch.stack(part, 1)[:, :, None] for part in zip(*entering, strict=True)))
    if start is not None:
        incoming = forget_mean(Mean(*(x.expand_as(v) for x in incoming)), start.cumsum(2) > 0)
    inner = Mean(*(torch.stack(part, 2) for part in zip(*means, strict=True)))
    found_all = _join_means(incoming, F.pad(log_w[:, :, :-1], (0, 0, 1, 0)).cumsum(2), inner)
    y = read_mean(found_all, u + k, v)
    return y.flatten(1, 2)[:, :T].to(dtype), torch.stack(carried, 1)


def token_shift(
    x: Tensor, last: Tensor, lengths: Tensor | None = None, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All previous inputs at once."""
    prev = torch.cat([last[:, None], x[:, :-1]], dim=1)
    if first is not None:
        prev = prev.masked_fill(first[..., None], 0)
    if lengths is None:
        return prev, x[:, -1]
    end = x.gather(1, (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
    return prev, torch.where(lengths[:, None] > 0, end, last)


def _fold(x: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """[B, T, H, N] -> [B, H, n, C, N], with identity steps behind the end."""
    x = F.pad(x.to(dtype), (0, 0, 0, 0, 0, -x.shape[1] % size))
    return x.view(x.shape[0], -1, size, *x.shape[2:]).permute(0, 3, 1, 2, 4)


def _unfold(y: Tensor, length: int) -> Tensor:
    """[B, H, n, C, N] -> [B, T, H, N]."""
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length]


def _grams(R: Tensor, A: Tensor, B: Tensor, K: Tensor, segment: Tensor | None) -> tuple[Tensor, ...]:
    """R B^T, R K^T (step i at or before t), A B^T and A K^T (i before t), within a document: [.., C, C] each."""
    size = R.shape[-2]
    seen = torch.ones(size, size, dtype=torch.bool, device=R.device).tril()
    seen_before = seen.tril(-1)
    if segment is not None:
        same = segment[..., :, None] == segment[..., None, :]
        seen, seen_before = seen & same, seen_before & same
    both = torch.cat([R, A], -2) @ torch.cat([B, K], -2).mT
    reads, deltas = both.split(size, -2)
    (rb, rk), (ab, ak) = reads.split(size, -1), deltas.split(size, -1)
    return rb * seen, rk * seen, ab * seen_before, ak * seen_before


def _segment(first: Tensor, size: int) -> Tensor:
    """Boundaries of its chunk up to each token [B, n, C]; padding belongs to the last document."""
    first = F.pad(first, (0, -first.shape[1] % size))
    return first.view(first.shape[0], -1, size).cumsum(-1)


def _masks(segment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the tokens of a chunk [.., C, 1]: in the document that was under way, in the one that goes on after it; and
    whether these are the same [.., 1, 1]."""
    old, last = segment == 0, segment == segment[..., -1:]
    return old[..., None], last[..., None], old[..., -1:, None]


def _walk(state: Tensor, carry: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """S_{i+1} = S_i carry_i + write_i over the chunks -> the states entering each [B, H, n, N, N], and the last."""
    entering = []
    for turn, new in zip(carry.unbind(2), write.unbind(2), strict=True):
        entering.append(state)
        state = state @ turn + new
    return torch.stack(entering, 2), state


def _walk_diagonal(state: Tensor, decay: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """The same where the chunk only decays the state: decay [B, H, n, 1, N]."""
    entering = []
    for w, new in zip(decay.unbind(2), write.unbind(2), strict=True):
        entering.append(state)
        state = state * w + new
    return torch.stack(entering, 2), state


def _double(r: Tensor, w: Tensor, k: Tensor, v: Tensor, segment: Tensor | None) -> tuple[Tensor, ...]:
    """Blocks of 1, 2, 4 … steps up to the chunk [B, H, n, C, N]: what its tokens read of each other (y), r as it reads
    a state that enters the chunk, k as it has decayed by the chunk's end, and the whole chunk's decay [.., 1, N].

    Two neighbouring blocks make one: the later reads the earlier through the border between them, on either side of
    which the decays are known products of w, each at most 1.
    """
    blocks = [x.unsqueeze(-2) for x in (torch.zeros_like(v), r, k, w, v)]  # [B, H, n, C / half, half, N]
    for half in (2**i for i in range((v.shape[-2] - 1).bit_length())):
        earlier, later = zip(*(x.unflatten(-3, (-1, 2)).unbind(-3) for x in blocks), strict=True)
        (y0, r0, k0, w0, v0), (y1, r1, k1, w1, v1) = earlier, later
        scores = (r1 * k0).sum(-1, keepdim=True) if half == 1 else r1 @ k0.mT
        if segment is not None:
            s = segment.unflatten(-1, (-1, 2, half))
            scores = scores * (s[..., 1, :, None] == s[..., 0, None, :])
        read = scores * v0 if half == 1 else scores @ v0
        pairs = (y0, y1 + read), (r0, _settle(r1 * w0)), (_settle(k0 * w1), k1)
        blocks = [*(torch.cat(pair, -2) for pair in pairs), _settle(w0 * w1), torch.cat([v0, v1], -2)]
    return tuple(x.squeeze(-3) for x in blocks[:4])


def _settle(x: Tensor) -> Tensor:
    """0 where a decayed number is all but 0: products with numbers below the normal range are many times slower."""
    return F.hardshrink(x, torch.finfo(x.dtype).tiny * 1e8)


def _join_means(older: Mean, log_w: Tensor, newer: Mean) -> Mean:
    """One mean of two: the older decayed by e^log_w."""
    top = older.top + log_w
    q = torch.maximum(top, newer.top)
    kept, new = (top - q).exp(), (newer.top - q).exp()
    return Mean(kept * older.num + new * newer.num, kept * older.den + new * newer.den, q)
