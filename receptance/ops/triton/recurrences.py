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
from . import LEAST_SIDE, refuses_heads
from . import wkv7 as delta

__all__ = ["wkv7"]

# Steps of a chunk: for larger ones a program's tiles do not fit into the registers of its threads, nor for wider heads
# and numbers.  RWKV-7's decays would allow 64, where seen from the middle they reach e^19.4.
CHUNK, SMALL_CHUNK, WIDE = 32, 16, 64


def wkv7(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """RWKV-7's delta rule, for log_w >= -e^{-1/2}.  Raises InputError for sizes and dtypes that no kernel serves."""
    inputs = [r, log_w, k, v, a, b]
    if any(x.dtype == torch.float64 for x in (*inputs, state)):
        raise InputError("the triton forms compute in float32; use the reference form for tensors in float64")
    if reason := refuses_heads(v.shape[3]):
        raise InputError(f"{reason}; use the chunked form")
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, state))
    y, end, *_ = _delta_operator(inputs, state, first, keep)
    return y, end


def _precision(v: Tensor) -> dict[str, Any]:
    """How factors of large products are held, and how others are multiplied."""
    if triton.knobs.runtime.interpret:
        return {"OPERAND": tl.float32, "EXACT": "ieee"}
    exact = "tf32x3" if v.dtype == torch.float32 else "tf32"
    # Scaled by decays, numbers leave the range of float16.
    operand = tl.bfloat16 if v.dtype == torch.bfloat16 else tl.float32
    return {"OPERAND": operand, "EXACT": "ieee" if torch.version.hip else exact}


def _kept_dtype(v: Tensor) -> torch.dtype:
    return torch.bfloat16 if v.dtype == torch.bfloat16 else torch.float32


def _tiling(v: Tensor) -> tuple[int, int]:
    """Steps of a chunk, and warps of a program."""
    is_narrow = v.dtype == torch.bfloat16 and v.shape[3] <= WIDE
    longest = CHUNK if is_narrow else SMALL_CHUNK
    return int(min(longest, max(LEAST_SIDE, triton.next_power_of_2(v.shape[1])))), 4 if is_narrow else 8


def _num_parts(num_heads: int, size: int, device: torch.device) -> int:
    """Into how many programs the values of a head are divided, so that few heads use a whole GPU."""
    if device.type != "cuda":
        return 1
    wanted = torch.cuda.get_device_properties(device).multi_processor_count
    parts = 1
    while num_heads * parts < wanted and size // parts > LEAST_SIDE:
        parts *= 2
    return parts


def _delta_forward(
    inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last state, and what the kernel's backward form wants to know; else empty tensors."""
    r, log_w, k, v, a, b = (x.contiguous() for x in inputs)
    (B, T, H, N), (size, warps) = v.shape, _tiling(v)
    y, end, kept, u, solution = _delta_empty(inputs, state, first, keep)
    parts = _num_parts(B * H, N, v.device)
    for_backward = (kept, u, solution) if keep else (None, None, None)
    marks = None if first is None else first.contiguous()
    delta.forward[(B * H, parts)](
        *(r, log_w, k, v, a, b, state.contiguous(), marks, y, end, *for_backward, T, H),
        N=N,
        V=N // parts,
        C=size,
        LOG_C=size.bit_length() - 1,
        num_warps=warps,
        **_precision(v),
    )
    return y, end, kept, u, solution


def _delta_empty(
    inputs: list[Tensor], state: Tensor, first: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    v = inputs[3]
    B, T, H, N = v.shape
    (size, _), dtype = _tiling(v), _kept_dtype(v)
    num_chunks = -(-T // size) if keep else 0
    return (
        v.new_empty(B, T, H, N),
        state.new_empty(B, H, N, N),
        v.new_empty(B, H, num_chunks, N, N, dtype=dtype),
        v.new_empty(B, T if keep else 0, H, N, dtype=dtype),
        v.new_empty(B, H, num_chunks, size, size, dtype=dtype),
    )


def _delta_backward(
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
    r, log_w, k, v, a, b = (x.contiguous() for x in inputs)
    (B, T, H, N), (size, warps) = v.shape, _tiling(v)
    d_y = torch.zeros_like(v) if d_y is None else d_y.contiguous()
    d_end = torch.zeros_like(end) if d_end is None else d_end.contiguous()
    parts, of_keys = _num_parts(B * H, N, v.device), (r, log_w, k, a, b)
    # What is summed over the values comes in as many parts as there are programs for them.
    d_keys = [x.new_empty(parts, *x.shape, dtype=x.dtype if parts == 1 else torch.float32) for x in of_keys]
    d_r, d_log_w, d_k, d_a, d_b = d_keys
    d_v, d_state = torch.empty_like(v), torch.empty_like(end)
    marks = None if first is None else first.contiguous()
    delta.backward[(B * H, parts)](
        *(r, log_w, k, v, a, b, marks, kept, u, solution, end, d_y, d_end),
        *(d_r, d_log_w, d_k, d_v, d_a, d_b, d_state, T, H, v.numel()),
        N=N,
        V=N // parts,
        C=size,
        num_warps=warps,
        **_precision(v),
    )
    d_r, d_log_w, d_k, d_a, d_b = (
        d[0] if parts == 1 else d.sum(0).to(x.dtype) for d, x in zip(d_keys, of_keys, strict=True)
    )
    return [d_r, d_log_w, d_k, d_v, d_a, d_b, d_state]


_delta_operator = torch.library.custom_op(
    "receptance::delta_rule",
    _delta_forward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor state, Tensor? first, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_delta_operator.register_fake(_delta_empty)
_delta_gradient = torch.library.custom_op(
    "receptance::delta_rule_backward",
    _delta_backward,
    mutates_args=(),
    schema="(Tensor[] inputs, Tensor? first, Tensor kept, Tensor u, Tensor solution, Tensor end, Tensor? d_y,"
    " Tensor? d_end) -> Tensor[]",
)


@_delta_gradient.register_fake
def _(inputs: list[Tensor], *others: Any) -> list[Tensor]:
    return [*map(torch.empty_like, inputs), torch.empty_like(others[4])]


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, _, first, _ = inputs
    _, end, kept, u, solution = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, first, kept, u, solution, end)


def _gradients(ctx: Any, d_y: Any, d_end: Any, *_: Any) -> Any:
    *tensors, first, kept, u, solution, end = ctx.saved_tensors
    *gradients, d_state = _delta_gradient(tensors, first, kept, u, solution, end, d_y, d_end)
    return gradients, d_state, None, None


_delta_operator.register_autograd(_gradients, setup_context=_remember)
