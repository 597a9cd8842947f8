"""The ops between matrix products and recurrences as operators of PyTorch's, around the kernels of any device.

    squared_relu = operators.squared_relu("", run_forward, run_backward)

A kernel fills memory that it is given.  The rest is here: schema, results without data for torch.compile, gradients.
What is a gradient of weights comes as one sum for each block of tokens; which sizes blocks have is the kernels' affair:
`num_blocks(rows)`.  `prefix` keeps the names of the operators apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["cross_entropy", "delta_inputs", "lerps", "new_like", "read_out", "squared_relu"]

Kernel = Callable[..., None]
NumBlocks = Callable[[int], int]


def new_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous tensor of the same shape."""
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def lerps(
    prefix: str, forward: Kernel, backward: Kernel, num_blocks: NumBlocks, dtypes: Collection[torch.dtype]
) -> Callable[..., list[Tensor]]:
    """`ops.lerps` around

    forward(start, end, weights, offsets, mixed)
    backward(start, end, weights, offsets, gradients, to_start, to_end, to_offsets, sums [blocks, mixes, C])

    which write any of `dtypes`.
    """

    @torch.library.custom_op(f"receptance::{prefix}lerps", mutates_args=())
    def operator(
        start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, dtype: torch.dtype
    ) -> list[Tensor]:
        mixed = [new_like(start, dtype) for _ in weights]
        forward(start, end, weights, offsets, mixed)
        return mixed

    @operator.register_fake
    def _(
        start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, dtype: torch.dtype
    ) -> list[Tensor]:
        return [new_like(start, dtype) for _ in weights]

    @torch.library.custom_op(f"receptance::{prefix}lerps_backward", mutates_args=())
    def differentiate(
        start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        to_start, to_end, to_offsets = new_like(start), new_like(end), new_like(start if offsets is None else offsets)
        sums = _sums(num_blocks(start.shape[:-1].numel()), len(weights), start.shape[-1], start)
        backward(start, end, weights, offsets, gradients, to_start, to_end, to_offsets, sums)
        return to_start, to_end, sums.sum(0), to_offsets

    @differentiate.register_fake
    def _(
        start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = start.new_empty(len(weights), start.shape[-1], dtype=torch.float32)
        return new_like(start), new_like(end), sums, new_like(start if offsets is None else offsets)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        start, end, weights, offsets, _ = inputs
        ctx.save_for_backward(start, end, offsets, *weights)

    def gradients_of(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
        start, end, offsets, *weights = ctx.saved_tensors
        to_start, to_end, sums, to_offsets = differentiate(start, end, weights, offsets, gradients)
        return to_start, to_end, _shaped(sums, weights), None if offsets is None else to_offsets, None

    operator.register_autograd(gradients_of, setup_context=keep)

    def form(start: Tensor, end: Tensor, weights: Sequence[Tensor], offsets: Tensor | None = None) -> list[Tensor]:
        """See `ops.lerps`; under autocast in the precision of the matrix products that the mixtures are for."""
        device, dtype = start.device.type, start.dtype
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) in dtypes:
            dtype = torch.get_autocast_dtype(device)
        mixed: list[Tensor] = operator(start, end, list(weights), offsets, dtype)
        return mixed

    return form


def delta_inputs(
    prefix: str, forward: Kernel, backward: Kernel, num_blocks: NumBlocks
) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """`ops.delta_inputs` around

    forward(vectors, weights, head_size, new)
    backward(vectors, weights, gradients, head_size, to_vectors, sums [blocks, 5, C])

    vectors are w, rate, k and perhaps v, v_first, share; weights w_0, a_0, k_k, k_a and perhaps v_0; new, and gradients
    likewise, log_w, k, a, b and perhaps v.
    """

    @torch.library.custom_op(f"receptance::{prefix}delta_inputs", mutates_args=())
    def operator(vectors: list[Tensor], weights: list[Tensor], head_size: int) -> list[Tensor]:
        new = _new_vectors(vectors)
        forward(vectors, weights, head_size, new)
        return new

    @operator.register_fake
    def _(vectors: list[Tensor], weights: list[Tensor], head_size: int) -> list[Tensor]:
        return _new_vectors(vectors)

    @torch.library.custom_op(f"receptance::{prefix}delta_inputs_backward", mutates_args=())
    def differentiate(
        vectors: list[Tensor], weights: list[Tensor], gradients: list[Tensor], head_size: int
    ) -> list[Tensor]:
        to_vectors = [new_like(x) for x in vectors]
        sums = _sums(num_blocks(vectors[0].shape[:-1].numel()), 5, vectors[0].shape[-1], vectors[0])
        backward(vectors, weights, gradients, head_size, to_vectors, sums)
        return [*to_vectors, sums.sum(0)]

    @differentiate.register_fake
    def _(vectors: list[Tensor], weights: list[Tensor], gradients: list[Tensor], head_size: int) -> list[Tensor]:
        return [*map(new_like, vectors), vectors[0].new_empty(5, vectors[0].shape[-1], dtype=torch.float32)]

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        vectors, weights, ctx.head_size = inputs
        ctx.num_vectors = len(vectors)
        ctx.save_for_backward(*vectors, *weights)

    def gradients_of(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
        saved = list(ctx.saved_tensors)
        vectors, weights = saved[: ctx.num_vectors], saved[ctx.num_vectors :]
        *to_vectors, sums = differentiate(vectors, weights, gradients, ctx.head_size)
        return to_vectors, _shaped(sums, weights), None

    operator.register_autograd(gradients_of, setup_context=keep)

    def form(
        w: Tensor,
        rate: Tensor,
        k: Tensor,
        v: Tensor,
        residual: tuple[Tensor, Tensor, Tensor] | None,
        w_0: Tensor,
        a_0: Tensor,
        k_k: Tensor,
        k_a: Tensor,
        head_size: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `ops.delta_inputs`."""
        vectors, weights = [w, rate, k], [w_0, a_0, k_k, k_a]
        if residual is not None:
            v_first, share, v_0 = residual
            vectors, weights = [*vectors, v, v_first, share], [*weights, v_0]
        log_w, written, a, b, *new_v = operator(vectors, weights, head_size)
        return log_w, written, new_v[0] if new_v else v, a, b

    return form


def read_out(prefix: str, forward: Kernel, backward: Kernel, num_blocks: NumBlocks) -> Callable[..., Tensor]:
    """`ops.read_out` around

    forward(heads, gate, weights, eps, bonus_first, out)
    backward(heads, gate, weights, eps, bonus_first, gradient, to_heads, to_gate, sums [blocks, 3, A])

    heads are y, r, k, v; weights are bonus, weight, bias; gate and to_gate may be None.
    """

    @torch.library.custom_op(f"receptance::{prefix}read_out", mutates_args=())
    def operator(
        heads: list[Tensor], gate: Tensor | None, weights: list[Tensor], eps: float, bonus_first: bool
    ) -> Tensor:
        out = new_like(heads[1]).flatten(2)
        forward(heads, gate, weights, eps, bonus_first, out)
        return out

    @operator.register_fake
    def _(
        heads: list[Tensor], gate: Tensor | None, weights: list[Tensor], eps: float, bonus_first: bool
    ) -> Tensor:
        return new_like(heads[1]).flatten(2)

    @torch.library.custom_op(f"receptance::{prefix}read_out_backward", mutates_args=())
    def differentiate(
        heads: list[Tensor],
        gate: Tensor | None,
        weights: list[Tensor],
        eps: float,
        bonus_first: bool,
        gradient: Tensor,
    ) -> list[Tensor]:
        """The gradients of the heads, the sums, and where there is a gate, its gradient."""
        to_heads, to_gate = [*map(new_like, heads)], None if gate is None else new_like(gate)
        r = heads[1]
        sums = _sums(num_blocks(r.shape[:2].numel()), 3, r.shape[2:].numel(), r)
        backward(heads, gate, weights, eps, bonus_first, gradient, to_heads, to_gate, sums)
        return [*to_heads, sums.sum(0), *([] if to_gate is None else [to_gate])]

    @differentiate.register_fake
    def _(
        heads: list[Tensor],
        gate: Tensor | None,
        weights: list[Tensor],
        eps: float,
        bonus_first: bool,
        gradient: Tensor,
    ) -> list[Tensor]:
        sums = heads[1].new_empty(3, heads[1].shape[2:].numel(), dtype=torch.float32)
        return [*map(new_like, heads), sums, *([] if gate is None else [new_like(gate)])]

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        heads, gate, weights, ctx.eps, ctx.bonus_first = inputs
        ctx.save_for_backward(gate, *heads, *weights)

    def gradients_of(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        gate, *rest = ctx.saved_tensors
        heads, weights = rest[:4], rest[4:]
        found = differentiate(heads, gate, weights, ctx.eps, ctx.bonus_first, gradient)
        return found[:4], found[5] if gate is not None else None, _shaped(found[4], weights), None, None

    operator.register_autograd(gradients_of, setup_context=keep)

    def form(
        y: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        bonus: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        bonus_first: bool = False,
    ) -> Tensor:
        """See `ops.read_out`."""
        out: Tensor = operator([y, r, k, v], gate, [bonus, weight, bias], eps, bonus_first)
        return out

    return form


def squared_relu(prefix: str, forward: Kernel, backward: Kernel) -> Callable[[Tensor], Tensor]:
    """`ops.squared_relu` around forward(x, y) and backward(x, gradient, to_x)."""

    @torch.library.custom_op(f"receptance::{prefix}squared_relu", mutates_args=())
    def operator(x: Tensor) -> Tensor:
        y = new_like(x)
        forward(x, y)
        return y

    @torch.library.custom_op(f"receptance::{prefix}squared_relu_backward", mutates_args=())
    def differentiate(x: Tensor, gradient: Tensor) -> Tensor:
        to_x = new_like(x)
        backward(x, gradient, to_x)
        return to_x

    operator.register_fake(new_like)
    differentiate.register_fake(lambda x, gradient: new_like(x))

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def gradients_of(ctx: Any, gradient: Tensor) -> Tensor:
        to_x: Tensor = differentiate(*ctx.saved_tensors, gradient)
        return to_x

    operator.register_autograd(gradients_of, setup_context=keep)
    return operator


def cross_entropy(prefix: str, forward: Kernel, backward: Kernel) -> Callable[..., Tensor]:
    """`ops.cross_entropy` around

    forward(logits, targets, losses, norms, tops, places)
    backward(logits, targets, norms, tops, places, gradient, l2wrap, to_logits)

    losses, norms (log of the sum of exponentials), tops (the largest logits) [R] float32, their places [R] int32.
    """

    @torch.library.custom_op(f"receptance::{prefix}cross_entropy", mutates_args=())
    def operator(logits: Tensor, targets: Tensor, l2wrap: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        losses, norms, tops, places = _of_positions(logits)
        forward(logits, targets, losses, norms, tops, places)
        return losses.sum(), norms, tops, places

    @operator.register_fake
    def _(logits: Tensor, targets: Tensor, l2wrap: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        losses, norms, tops, places = _of_positions(logits)
        return losses.sum(), norms, tops, places

    @torch.library.custom_op(f"receptance::{prefix}cross_entropy_backward", mutates_args=())
    def differentiate(
        logits: Tensor,
        targets: Tensor,
        norms: Tensor,
        tops: Tensor,
        places: Tensor,
        gradient: Tensor,
        l2wrap: float,
    ) -> Tensor:
        to_logits = new_like(logits)
        backward(logits, targets, norms, tops, places, gradient, l2wrap, to_logits)
        return to_logits

    differentiate.register_fake(lambda logits, *_: new_like(logits))

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        logits, targets, ctx.l2wrap = inputs
        ctx.save_for_backward(logits, targets, *output[1:])

    def gradients_of(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Any, ...]:
        return differentiate(*ctx.saved_tensors, gradient, ctx.l2wrap), None, None

    operator.register_autograd(gradients_of, setup_context=keep)

    def form(logits: Tensor, targets: Tensor, l2wrap: float = 0.0) -> Tensor:
        """See `ops.cross_entropy`."""
        total: Tensor = operator(logits, targets, l2wrap)[0]
        return total

    return form


def _of_positions(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses, norms, tops = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(3))
    return losses, norms, tops, logits.new_empty(len(logits), dtype=torch.int32)


def _new_vectors(vectors: list[Tensor]) -> list[Tensor]:
    """log_w in the dtype of w, the new k, a and b in that of k, and perhaps v."""
    w, _, k, *values = vectors
    return [new_like(x) for x in (w, k, k, k, *values[:1])]


def _sums(num_blocks: int, num_weights: int, width: int, like: Tensor) -> Tensor:
    return like.new_empty(num_blocks, num_weights, width, dtype=torch.float32)


def _shaped(sums: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Sums [weights, width] as gradients of the weights, in their shapes and dtypes."""
    return [sums[j].view(weight.shape).to(weight.dtype) for j, weight in enumerate(weights)]
