"""The forms called "triton": the kernels as functions of tensors, for autograd and torch.compile too.

    y, state = wkv7(r, log_w, k, v, a, b, state, first)

Arguments, results and errors are those of `ops`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...errors import InputError
from ..operators import new_like
from . import LEAST_SIDE, recurrent, refuses_heads
from . import wkv4 as means
from . import wkv6 as gated
from . import wkv7 as delta
from .launch import launch

__all__ = ["wkv4", "wkv6", "wkv7"]

# Steps of a chunk: for larger ones a program's tiles do not fit into the registers of its threads, nor for wider heads
# and numbers.  RWKV-7's decays would allow 64, where seen from the middle they reach e^19.4.
CHUNK, SMALL_CHUNK, WIDE = 32, 16, 64
# Which of the inputs are the decay and the values.
DECAY, VALUES = 1, 3
# For fewer tokens there are no chunks.
FEW = 16
# How many chunks are under way from memory: more need more room than some GPUs have.
STAGES = 1
# Of wkv4: steps of a chunk, and channels of a program.
MEAN_STEPS, MEAN_CHANNELS = 32, 32


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-7's delta rule, for log_w >= -e^{-1/2}.  Raises InputError for heads and dtypes that no kernel serves."""
    return _matrix_state([r, log_w, k, v, a, b], state, first)


def wkv6(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated recurrence of RWKV-5 and 6.  Raises InputError for heads and dtypes that no kernel serves."""
    return _matrix_state([r, log_w, k, v], state, first)


def wkv4(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-4's weighted mean.  Raises InputError for dtypes that no kernel serves."""
    _in_float32(log_w, u, k, v, state)
    keep = _wants_gradient(log_w, u, k, v, state)
    y, end, _ = _mean_operator(log_w, u, k, v, state, first, keep)
    return y, end


def _in_float32(*tensors: Tensor) -> None:
    if any(x.dtype == torch.float64 for x in tensors):
        raise InputError("the triton forms compute in float32; use the reference form for tensors in float64")


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _matrix_state(inputs: list[Tensor], state: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    _in_float32(*inputs, state)
    if reason := refuses_heads(inputs[VALUES].shape[3]):
        raise InputError(f"{reason}; use the chunked form")
    y, end, *_ = _operator(inputs, state, first, _wants_gradient(*inputs, state))
    return y, end


def _precision(inputs: list[Tensor]) -> dict[str, Any]:
    """How factors of large products are held, and how others are multiplied."""
    if triton.knobs.runtime.interpret:
        return {"OPERAND": tl.float32, "EXACT": "ieee"}
    exact = "tf32x3" if inputs[VALUES].dtype == torch.float32 else "tf32"
    # Scaled by decays, numbers leave the range of float16.
    operand = tl.bfloat16 if _operand_dtype(inputs) == torch.bfloat16 else tl.float32
    return {"OPERAND": operand, "EXACT": "ieee" if torch.version.hip else exact}


def _operand_dtype(inputs: list[Tensor]) -> torch.dtype:
    """bfloat16 where everything but the decay is."""
    vectors = (x for place, x in enumerate(inputs) if place != DECAY)
    return torch.bfloat16 if all(x.dtype == torch.bfloat16 for x in vectors) else torch.float32


def _tiling(inputs: list[Tensor]) -> tuple[int, int]:
    """Steps of a chunk, and warps of a program."""
    _, T, _, N = inputs[VALUES].shape
    is_narrow = _operand_dtype(inputs) == torch.bfloat16 and N <= WIDE
    longest = CHUNK if is_narrow else SMALL_CHUNK
    return int(min(longest, max(LEAST_SIDE, triton.next_power_of_2(T)))), 4 if is_narrow else 8


def _num_parts(num_heads: int, size: int, device: torch.device) -> int:
    """Into how many programs the values of a head are divided, so that few heads use a whole GPU."""
    if device.type != "cuda":
        return 1
    wanted = torch.cuda.get_device_properties(device).multi_processor_count
    parts = 1
    while num_heads * parts < wanted and size // parts > LEAST_SIDE:
        parts *= 2
    return parts


def _forward(
    inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last state, and what the backward form wants to know: the state that enters each chunk, and for wkv7
    u_t = S_{t-1} a_t and each chunk's (I - ab)^-1; else empty tensors."""
    v, has_delta = inputs[VALUES], len(inputs) == 6
    B, T, H, N = v.shape
    y, end, kept, u, solution = _empty(inputs, state, first, keep)
    parts, marks = _num_parts(B * H, N, v.device), None if first is None else first.contiguous()
    if not keep and T < FEW:
        vectors = [*(x.contiguous() for x in inputs), *(6 - len(inputs)) * [None]]
        launch(recurrent.forward, (B * H, parts), *vectors, state.contiguous(), marks, y, end, T, H, N=N, V=N // parts)
        return y, end, kept, u, solution
    results = (kept, u, solution) if has_delta else (kept,)
    kernel = delta.forward if has_delta else gated.forward
    tensors = [*(x.contiguous() for x in (*inputs, state)), marks, y, end, *(x if keep else None for x in results)]
    launch(kernel, (B * H, parts), *tensors, T, H, **_constants(inputs, parts))
    return y, end, kept, u, solution


def _empty(
    inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    v, has_delta = inputs[VALUES], len(inputs) == 6
    B, T, H, N = v.shape
    size, _ = _tiling(inputs)
    num_chunks, dtype = -(-T // size) if keep else 0, _operand_dtype(inputs)
    return (
        v.new_empty(B, T, H, N),
        state.new_empty(B, H, N, N),
        v.new_empty(B, H, num_chunks, N, N, dtype=dtype),
        v.new_empty(B, T if keep and has_delta else 0, H, N, dtype=dtype),
        v.new_empty(B, H, num_chunks if has_delta else 0, size, size, dtype=dtype),
    )


def _backward(
    inputs: list[Tensor],
    first: Tensor | None,
    kept: Tensor,
    u: Tensor,
    solution: Tensor,
    end: Tensor,
    d_y: Tensor | None,
    d_end: Tensor | None,
) -> list[Tensor]:
    """The gradients of all inputs, each in its dtype, and of the state."""
    inputs = [x.contiguous() for x in inputs]
    v, has_delta = inputs[VALUES], len(inputs) == 6
    B, T, H, N = v.shape
    parts, marks = _num_parts(B * H, N, v.device), None if first is None else first.contiguous()
    d_y = torch.zeros_like(v) if d_y is None else d_y.contiguous()
    d_end = torch.zeros_like(end) if d_end is None else d_end.contiguous()
    # What is summed over the values comes in as many parts as there are programs for them.
    gradients = [
        torch.empty_like(x) if place == VALUES or parts == 1 else x.new_empty(parts, *x.shape, dtype=torch.float32)
        for place, x in enumerate(inputs)
    ]
    d_state, saved = torch.empty_like(end), (kept, u, solution) if has_delta else (kept,)
    kernel = delta.backward if has_delta else gated.backward
    tensors = [*inputs, marks, *saved, end, d_y, d_end, *gradients, d_state]
    launch(kernel, (B * H, parts), *tensors, T, H, v.numel(), **_constants(inputs, parts))
    whole = (d if d.shape == x.shape else d.sum(0).to(x.dtype) for d, x in zip(gradients, inputs, strict=True))
    return [*whole, d_state]


def _constants(inputs: list[Tensor], parts: int) -> dict[str, Any]:
    (size, warps), N = _tiling(inputs), inputs[VALUES].shape[3]
    sizes = {"N": N, "V": N // parts, "C": size, "LOG_C": size.bit_length() - 1}
    return {**sizes, **_precision(inputs), "num_warps": warps, "num_stages": STAGES}


_operator = torch.library.custom_op(
    "receptance::triton_matrix_state",
    _forward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor state, Tensor? first, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_operator.register_fake(_empty)
_gradient = torch.library.custom_op(
    "receptance::triton_matrix_state_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor? first, Tensor kept, Tensor u, Tensor solution, Tensor end, Tensor? d_y,"
    " Tensor? d_end) -> Tensor[]",
)


@_gradient.register_fake
def _(inputs: list[Tensor], *others: Any) -> list[Tensor]:
    return [*map(new_like, inputs), new_like(others[4])]


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, _, first, _ = inputs
    _, end, kept, u, solution = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, first, kept, u, solution, end)


def _gradients(ctx: Any, d_y: Any, d_end: Any, *_: Any) -> Any:
    *tensors, first, kept, u, solution, end = ctx.saved_tensors
    *gradients, d_state = _gradient(tensors, first, kept, u, solution, end, d_y, d_end)
    return gradients, d_state, None, None


_operator.register_autograd(_gradients, setup_context=_remember)


# wkv4


def _mean_forward(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state and, where it is to be kept, the state that enters each chunk [B, n, 3, A]; else nothing."""
    B, T, A = v.shape
    y, end, kept = _mean_empty(log_w, u, k, v, state, first, keep)
    marks, (decay, tile) = None if first is None else first.contiguous(), _mean_tile(log_w)
    tensors = [decay, *(x.contiguous() for x in (u, k, v, state)), marks, y, end, kept if keep else None]
    launch(means.forward, (B, triton.cdiv(A, MEAN_CHANNELS)), *tensors, T, A, **tile)
    return y, end, kept


def _mean_empty(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, A = v.shape
    return v.new_empty(B, T, A), state.new_empty(B, 3, A), state.new_empty(B, -(-T // MEAN_STEPS) if keep else 0, 3, A)


def _mean_tile(log_w: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """log_w [B, T, A], or [A] where all tokens share the memory of one, and the constants of a kernel."""
    shared = log_w.numel() > 0 and log_w.stride()[:2] == (0, 0)
    tile = {"SHARED": shared, "C": MEAN_STEPS, "COLUMNS": MEAN_CHANNELS}
    return (log_w[0, 0] if shared else log_w).contiguous(), tile


def _mean_backward(
    log_w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    kept: Tensor,
    end: Tensor,
    d_y: Tensor | None,
    d_end: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of log_w, u, k and v, each in its dtype, and of the state."""
    B, T, A = v.shape
    u_, k_, v_ = (x.contiguous() for x in (u, k, v))
    marks, (decay, tile) = None if first is None else first.contiguous(), _mean_tile(log_w)
    d_y = torch.zeros_like(v_) if d_y is None else d_y.contiguous()
    d_end = torch.zeros_like(end) if d_end is None else d_end.contiguous()
    d_log_w, d_u, d_state = log_w.new_empty(B, T, A), end.new_empty(B, A), torch.empty_like(end)
    d_k, d_v = torch.empty_like(k_), torch.empty_like(v_)
    tensors = [decay, u_, k_, v_, marks, kept, end, d_y, d_end, d_log_w, d_u, d_k, d_v, d_state]
    launch(means.backward, (B, triton.cdiv(A, MEAN_CHANNELS)), *tensors, T, A, **tile)
    return d_log_w, d_u.sum(0).to(u.dtype), d_k, d_v, d_state


_mean_operator = torch.library.custom_op(
    "receptance::triton_mean",
    _mean_forward,
    mutates_args=(),
    schema="(Tensor log_w, Tensor u, Tensor k, Tensor v, Tensor state, Tensor? first, bool keep)"
    " -> (Tensor, Tensor, Tensor)",
)
_mean_operator.register_fake(_mean_empty)
_mean_gradient = torch.library.custom_op(
    "receptance::triton_mean_backward",
    _mean_backward,
    mutates_args=(),
    schema="(Tensor log_w, Tensor u, Tensor k, Tensor v, Tensor? first, Tensor kept, Tensor end, Tensor? d_y,"
    " Tensor? d_end) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@_mean_gradient.register_fake
def _(
    log_w: Tensor, u: Tensor, k: Tensor, v: Tensor, first: Tensor | None, kept: Tensor, end: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return log_w.new_empty(log_w.shape), *(x.new_empty(x.shape) for x in (u, k, v, end))


def _remember_mean(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, _, first, _ = inputs
    _, end, kept = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, first, kept, end)


def _mean_gradients(ctx: Any, d_y: Any, d_end: Any, _: Any) -> Any:
    return *_mean_gradient(*ctx.saved_tensors, d_y, d_end), None, None


_mean_operator.register_autograd(_mean_gradients, setup_context=_remember_mean)
