"""Layers with int8 or int4 weights, which take the place of `nn.Linear` and of low-rank factors.

    layer = QuantLinear(pack(linear.weight, INT4), linear.bias, linear.weight.dtype)
    factor = QuantFactor(pack(w1.T, INT8), w1.dtype)            # `x @ factor` is `x @ w1`

What they compute.  A matrix by output multiplies inputs that are rounded to int8 in groups of 32, in the recurrent and
in the parallel form alike, so that both agree; where gradients are wanted the inputs are taken as they are.  A matrix
by input takes its inputs as they are, too.  Gradients flow to the inputs, not to the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..devices import multiplies
from ..ops import cpu
from ..ops.cpu.storage import BY_INPUT, GROUP
from .packing import Packed, unpack

__all__ = ["QuantFactor", "QuantLinear", "Quantised", "multiply", "pieces", "round_inputs"]

# Up to so many rows a product is bound by the reading of its weights, and the kernels that read them packed serve.
FEW_ROWS = 32
# Weights that are unpacked at a time: 32 MB in float32.
PIECE = 2**23
LARGEST = 127
# What PyTorch may call `x @ y`.
MATMULS = (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul)


def multiply(x: Tensor, matrix: Packed, bias: Tensor | None = None) -> Tensor:
    """x [..., in] -> x W^T + bias [..., out], in the dtype of x.

    Whoever follows a model's computation with values that are no tensors is asked through PyTorch's protocol.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(multiply, (x,), x, matrix, bias)
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _Differentiable.apply(x, matrix)  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias
    rows = x.flatten(0, -2) if x.dim() > 1 else x[None]
    serve = _by_kernel if _kernel_serves(rows) else _by_pieces
    return serve(rows, matrix, bias).to(x.dtype).view(*x.shape[:-1], matrix.num_out)


def _kernel_serves(rows: Tensor) -> bool:
    few = 0 < len(rows) <= FEW_ROWS and rows.device.type == "cpu" and rows.dtype != torch.float64
    return few and not torch.compiler.is_compiling() and cpu.refusal() is None


def _by_kernel(rows: Tensor, matrix: Packed, bias: Tensor | None) -> Tensor:
    # Numba is loaded where it is needed.
    from ..ops.cpu.products import product

    addend = None if bias is None else bias.float()
    return product(rows.float(), matrix.kind, matrix.packed, matrix.scales, matrix.num_out, matrix.num_in, addend)


def _by_pieces(rows: Tensor, matrix: Packed, bias: Tensor | None) -> Tensor:
    rounded = round_inputs(rows) if matrix.kind < BY_INPUT else rows
    return _product(rounded, matrix, bias)


def _product(rows: Tensor, matrix: Packed, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias, with a part of the weight unpacked at a time."""
    dtype = _computed_in(rows)
    rows, addend = rows.to(dtype), None if bias is None else bias.to(dtype)
    parts = [
        F.linear(rows, weight, None if addend is None else addend[start : start + len(weight)])
        for start, weight in pieces(matrix, dtype)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _computed_in(rows: Tensor) -> torch.dtype:
    """What products of many rows are computed in: what the inputs are where that is fast, else float32."""
    narrow = rows.dtype in (torch.bfloat16, torch.float16) and not multiplies(rows.dtype, rows.device)
    return torch.float32 if narrow else rows.dtype


def pieces(matrix: Packed, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """The number of the first output, and the weights of it and some that follow, for all outputs."""
    # Whole blocks of 128, so that none is unpacked twice.
    step = max(128, PIECE // matrix.num_in // 128 * 128)
    on_cpu = matrix.packed.device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
    unpacked = _unpack_by_kernel if on_cpu and cpu.refusal() is None else unpack
    for start in range(0, matrix.num_out, step):
        yield start, unpacked(matrix, dtype, (start, min(start + step, matrix.num_out)))


def _unpack_by_kernel(matrix: Packed, dtype: torch.dtype, rows: tuple[int, int]) -> Tensor:
    from ..ops.cpu.products import dequantize

    return dequantize(matrix.kind, matrix.packed, matrix.scales, matrix.num_out, matrix.num_in, dtype, rows)


def round_inputs(rows: Tensor) -> Tensor:
    """[M, in], rounded to int8 in groups of 32 and scaled back; in the dtype of `rows`."""
    groups = rows.to(torch.promote_types(rows.dtype, torch.float32)).unflatten(1, (-1, GROUP))
    steps = groups.abs().amax(-1, keepdim=True) / LARGEST
    inverse = torch.where(steps == 0, 0.0, 1 / steps)
    rounded: Tensor = (groups * inverse).round_().mul_(steps)
    return rounded.flatten(1).to(rows.dtype)


class _Differentiable(torch.autograd.Function):
    """x W^T with a gradient for x alone, and with x as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Packed) -> Tensor:
        ctx.matrix = matrix
        return _product(x.flatten(0, -2), matrix).to(x.dtype).view(*x.shape[:-1], matrix.num_out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrix, rows = ctx.matrix, gradient.flatten(0, -2)
        dtype = _computed_in(rows)
        wide = torch.promote_types(dtype, torch.float32)
        total = torch.zeros(len(rows), matrix.num_in, dtype=wide, device=rows.device)
        for start, weight in pieces(matrix, dtype):
            total += rows[:, start : start + len(weight)].to(dtype) @ weight
        return total.to(gradient.dtype).view(*gradient.shape[:-1], matrix.num_in), None


class Quantised(nn.Module):
    """A module around a quantised matrix.

    matrix   the matrix with all that a kernel has to know of it
    dtype    what its weights are given in when somebody asks for them
    error    the squared error of its outputs, as a share of their squares, where it was measured
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, matrix: Packed, dtype: torch.dtype) -> None:
        # Not the next class's: nn.Linear's would allocate a weight.
        nn.Module.__init__(self)
        self.kind, self.num_out, self.num_in = matrix.kind, matrix.num_out, matrix.num_in
        self.dtype = dtype
        self.error: float | None = None
        self.register_buffer("packed", matrix.packed)
        self.register_buffer("scales", matrix.scales)

    @property
    def matrix(self) -> Packed:
        return Packed(self.packed, self.scales, self.kind, self.num_out, self.num_in)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Quantised:
        # `model.float()` changes what is computed in, but the scales are what the kernels read.
        scales = self.scales
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=scales.device)).dtype
        if self.scales.dtype != scales.dtype:
            self.scales = scales.to(self.scales.device)
        return self

    def extra_repr(self) -> str:
        side = "input" if self.kind >= BY_INPUT else "output"
        return f"{self.num_in} -> {self.num_out}, {self.matrix.format.name} by {side}"


class QuantLinear(Quantised, nn.Linear):
    """`nn.Linear` with a quantised weight; adapters that look for an `nn.Linear` find one."""

    def __init__(self, matrix: Packed, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, dtype)
        self.in_features, self.out_features = matrix.num_in, matrix.num_out
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight [out, in] in `dtype`, unpacked each time it is asked for; changing it changes nothing."""
        return unpack(self.matrix, self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        return multiply(input, self.matrix, self.bias)


class QuantFactor(Quantised):
    """A factor [in, out] of a low-rank matrix, used as `x @ factor`."""

    @property
    def shape(self) -> torch.Size:
        """[in, out]: the matrix is stored transposed."""
        return torch.Size((self.num_in, self.num_out))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in MATMULS:
            return NotImplemented
        x, factor = args
        return multiply(x, factor.matrix) if isinstance(factor, cls) else NotImplemented
