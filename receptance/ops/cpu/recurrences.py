"""The forms called "numba": the kernels as functions of tensors, for autograd and torch.compile too.

    y, state = wkv7(r, log_w, k, v, a, b, state, first)

Arguments, results and errors are those of `ops`.  Where no gradient is asked for, a call goes to the kernel directly
and keeps nothing; else, and while something follows the call, it is an operator of PyTorch's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..operators import new_like
from . import matrices
from . import wkv4 as means
from .blocks import KINDS
from .chunks import STEPS

__all__ = ["wkv4", "wkv6", "wkv7"]

# A block of wkv4 is a multiple of so many channels.
CHANNELS = 64


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-7's delta rule, for any log_w <= 0."""
    return _matrix_state([r, log_w, k, v, a, b], state, first)


def wkv6(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated recurrence of RWKV-5 and 6."""
    return _matrix_state([r, log_w, k, v], state, first)


def wkv4(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-4's weighted mean."""
    keep = _wants_gradient(log_w, u, k, v, state)
    compute = _mean_operator if keep or _followed(v) else _mean_forward
    _in_float32(log_w, u, k, v, state)
    y, end, _ = compute(log_w, u, k, v, state, first, keep)
    return y, end


def _matrix_state(inputs: list[Tensor], state: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    keep = _wants_gradient(*inputs, state)
    compute = _matrix_operator if keep or _followed(inputs[3]) else _matrix_forward
    _in_float32(*inputs, state)
    y, end, _, _ = compute(inputs, state, first, keep)
    return y, end


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _followed(x: Tensor) -> bool:
    """Whether a compiler, or a tensor that is no tensor, wants to know what is done."""
    return torch.compiler.is_compiling() or type(x) is not Tensor


def _in_float32(*tensors: Tensor) -> None:
    if any(x.dtype == torch.float64 for x in tensors):
        raise InputError("the numba forms compute in float32; use the reference form for tensors in float64")


# wkv6 and wkv7


def _matrix_forward(
    inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the new state and, where these are to be kept, the state every STEPS steps [B, H, n, N, N] and, for wkv7,
    u_t = S_{t-1} a_t [B, T, H, N]; else empty tensors."""
    B, T, H, N = inputs[3].shape
    num_kept, delta = -(-T // STEPS) if keep else 0, len(inputs) == 6
    kept, u = state.new_empty(B, H, num_kept, N, N), state.new_empty(B, T if keep and delta else 0, H, N)
    values, missing = [*map(_readable, inputs)], [None] * (6 - len(inputs))
    y, end, together = new_like(values[3]), new_like(state), _together(B, H, torch.get_num_threads())
    matrices.forward(N).run(
        (T, H, N, num_kept, together),
        (*values, *missing, None, u if u.numel() else None, _marks(first), kept if keep else None, state, end, y),
        B * -(-H // together),
    )
    return y.to(inputs[3].dtype), end, kept, u


def _matrix_backward(
    inputs: list[Tensor],
    first: Tensor | None,
    kept: Tensor,
    u: Tensor,
    dy: Tensor | None,
    d_end: Tensor | None,
) -> list[Tensor]:
    """The gradients of all inputs, each in its dtype, and of the state."""
    B, T, H, N = inputs[3].shape
    values, missing = [*map(_readable, inputs)], [None] * (6 - len(inputs))
    gradients, together = [*map(new_like, values)], _together(B, H, torch.get_num_threads())
    dy = values[3].new_zeros(B, T, H, N) if dy is None else _readable(dy)
    d_end = kept.new_zeros(B, H, N, N) if d_end is None else d_end
    d_start = new_like(d_end)
    matrices.backward(N).run(
        (T, H, N, kept.shape[2], together),
        (*values, *missing, dy, u if u.numel() else None, _marks(first), kept, d_end, d_start, *gradients, *missing),
        B * -(-H // together),
    )
    return [*(d.to(x.dtype) for d, x in zip(gradients, inputs, strict=True)), d_start]


_matrix_operator = torch.library.custom_op(
    "receptance::matrix_state",
    _matrix_forward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor state, Tensor? first, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
)
_matrix_gradient = torch.library.custom_op(
    "receptance::matrix_state_backward",
    _matrix_backward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor? first, Tensor kept, Tensor u, Tensor? dy, Tensor? d_end) -> Tensor[]",
)


@_matrix_operator.register_fake
def _(inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, T, H, N = inputs[3].shape
    kept = state.new_empty(B, H, -(-T // STEPS) if keep else 0, N, N)
    u = state.new_empty(B, T if keep and len(inputs) == 6 else 0, H, N)
    return inputs[3].new_empty(B, T, H, N), state.new_empty(B, H, N, N), kept, u


@_matrix_gradient.register_fake
def _(
    inputs: list[Tensor], first: Tensor | None, kept: Tensor, u: Tensor, dy: Tensor | None, d_end: Tensor | None
) -> list[Tensor]:
    B, _, H, N = inputs[3].shape
    return [*(x.new_empty(x.shape) for x in inputs), kept.new_empty(B, H, N, N)]


def _remember_matrices(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, _, first, _ = inputs
    _, _, kept, u = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, first, kept, u)


def _matrix_gradients(ctx: Any, dy: Any, d_end: Any, _kept: Any, _u: Any) -> Any:
    *tensors, first, kept, u = ctx.saved_tensors
    *gradients, d_state = _matrix_gradient(tensors, first, kept, u, dy, d_end)
    return gradients, d_state, None, None


_matrix_operator.register_autograd(_matrix_gradients, setup_context=_remember_matrices)


# wkv4


def _mean_forward(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the new state and, where it is to be kept, the state every STEPS steps [B, n, 3, A]; else an empty tensor."""
    B, T, A = v.shape
    values, decay = [*map(_readable, (u, k, v))], _decay(log_w)
    kept = state.new_empty(B, -(-T // STEPS) if keep else 0, 3, A)
    y, end, together = new_like(values[2]), new_like(state), _channels_together(B, A)
    means.forward.run(
        (T, A, kept.shape[1], together, decay.dim() == 1),
        (decay, *values, _marks(first), None, kept if keep else None, state, end, y),
        B * -(-A // together),
    )
    return y.to(v.dtype), end, kept


def _mean_backward(
    log_w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    kept: Tensor,
    dy: Tensor | None,
    d_end: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of log_w, u, k and v, each in its dtype, and of the state."""
    B, T, A = v.shape
    values, decay, together = [*map(_readable, (u, k, v))], _decay(log_w), _channels_together(B, A)
    dy = values[2].new_zeros(B, T, A) if dy is None else _readable(dy)
    d_end = kept.new_zeros(B, 3, A) if d_end is None else d_end
    d_log_w, du, d_start = new_like(values[2], torch.float32), kept.new_empty(B, A), new_like(d_end)
    dk, dv = new_like(values[1]), new_like(values[2])
    means.backward.run(
        (T, A, kept.shape[1], together, decay.dim() == 1),
        (decay, *values, _marks(first), dy, kept, d_end, d_start, d_log_w, dk, dv, du),
        B * -(-A // together),
    )
    return d_log_w.to(log_w.dtype), du.sum(0).to(u.dtype), dk.to(k.dtype), dv.to(v.dtype), d_start


_mean_operator = torch.library.custom_op(
    "receptance::mean",
    _mean_forward,
    mutates_args=(),
    schema="(Tensor log_w, Tensor u, Tensor k, Tensor v, Tensor state, Tensor? first, bool keep)"
    " -> (Tensor, Tensor, Tensor)",
)
_mean_gradient = torch.library.custom_op(
    "receptance::mean_backward",
    _mean_backward,
    mutates_args=(),
    schema="(Tensor log_w, Tensor u, Tensor k, Tensor v, Tensor? first, Tensor kept, Tensor? dy, Tensor? d_end)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@_mean_operator.register_fake
def _(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, A = v.shape
    return v.new_empty(B, T, A), state.new_empty(B, 3, A), state.new_empty(B, -(-T // STEPS) if keep else 0, 3, A)


@_mean_gradient.register_fake
def _(
    log_w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    kept: Tensor,
    dy: Tensor | None,
    d_end: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, A = v.shape
    d_log_w, du, dk, dv = (x.new_empty(x.shape) for x in (log_w, u, k, v))
    return d_log_w, du, dk, dv, kept.new_empty(B, 3, A)


def _remember_means(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, _, first, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, first, output[2])


def _mean_gradients(ctx: Any, dy: Any, d_end: Any, _kept: Any) -> Any:
    return *_mean_gradient(*ctx.saved_tensors, dy, d_end), None, None


_mean_operator.register_autograd(_mean_gradients, setup_context=_remember_means)


# What the kernels are given


def _readable(x: Tensor) -> Tensor:
    """In a dtype that the kernels read."""
    return x if x.dtype in KINDS else x.float()


def _decay(log_w: Tensor) -> Tensor:
    """log_w [B, T, A], or [A] where all tokens share the memory of one."""
    return _readable(log_w[0, 0] if log_w.numel() and log_w.stride()[:2] == (0, 0) else log_w)


def _marks(first: Tensor | None) -> Tensor | None:
    return None if first is None else first.float()


def _channels_together(num_rows: int, width: int) -> int:
    return CHANNELS * _together(num_rows, -(-width // CHANNELS), torch.get_num_threads(), most=4)


@cache
def _together(num_rows: int, num_parts: int, num_threads: int, most: int = 16) -> int:
    """How many of the parts of a row (heads) are a block, so that no thread waits for another for long."""

    def rounds(together: int) -> int:
        return -(-num_rows * -(-num_parts // together) // num_threads) * together

    return min(range(1, max(1, min(num_parts, most)) + 1), key=lambda together: (rounds(together), -together))
