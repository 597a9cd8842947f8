"""All forms called "triton", by the names of their ops; `dispatch` imports this when the first of them serves."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from .. import operators
from . import cross_entropy as entropy
from . import elementwise
from .launch import launch
from .recurrences import wkv4, wkv6, wkv7

__all__ = ["cross_entropy", "delta_inputs", "lerps", "read_out", "squared_relu", "wkv4", "wkv6", "wkv7"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# The tile of a program.
ROWS, COLUMNS = 32, 64
TILE = {"ROWS": ROWS, "COLUMNS": COLUMNS}
# Numbers that a program without weights takes.
SIZE = 1024


def num_blocks(num_rows: int) -> int:
    """How many programs share the tokens."""
    return int(triton.cdiv(num_rows, ROWS))


def _ready(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if x is None else x.contiguous() for x in tensors]


def _tiles(rows: int, width: int) -> tuple[int, int]:
    return num_blocks(rows), int(triton.cdiv(width, COLUMNS))


def _lerps_forward(start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, mixed: Any) -> None:
    rows, width = start.shape[:-1].numel(), start.shape[-1]
    start_, end_, offsets_ = _ready(start, end, offsets)
    inputs = (start_, end_, tuple(_ready(*weights)), offsets_)
    launch(elementwise.lerps_forward, _tiles(rows, width), *inputs, tuple(mixed), rows, width, **TILE)


def _lerps_backward(
    start: Tensor, end: Tensor, weights: list[Tensor], offsets: Tensor | None, gradients: list[Tensor], *results: Tensor
) -> None:
    rows, width = start.shape[:-1].numel(), start.shape[-1]
    start_, end_, offsets_ = _ready(start, end, offsets)
    inputs = (start_, end_, tuple(_ready(*weights)), offsets_, tuple(_ready(*gradients)))
    launch(elementwise.lerps_backward, _tiles(rows, width), *inputs, *results, rows, width, **TILE)


def _heads(like: Tensor, head_size: int) -> tuple[int, int, tuple[int, int], dict[str, int]]:
    """Rows and width of a tensor, the programs for it, and the tile of a head."""
    rows = like.shape[:2].numel()
    width = like.shape[2:].numel()
    columns = triton.next_power_of_2(head_size)
    tile = {"N": head_size, "ROWS": ROWS, "COLUMNS": columns}
    return rows, width, (num_blocks(rows), width // head_size), tile


def _delta_forward(vectors: list[Tensor], weights: list[Tensor], head_size: int, new: list[Tensor]) -> None:
    rows, width, grid, tile = _heads(vectors[0], head_size)
    tensors = [*_all(vectors, 6), *_all(weights, 5), *_all(new, 5)]
    launch(elementwise.delta_forward, grid, *tensors, rows, width, **tile)


def _delta_backward(
    vectors: list[Tensor],
    weights: list[Tensor],
    gradients: list[Tensor],
    head_size: int,
    new: list[Tensor],
    sums: Tensor,
) -> None:
    rows, width, grid, tile = _heads(vectors[0], head_size)
    tensors = [*_all(vectors, 6), *_all(weights, 5), *_all(gradients, 5), *_all(new, 6), sums]
    launch(elementwise.delta_backward, grid, *tensors, rows, width, **tile)


def _all(tensors: list[Tensor], count: int) -> list[Tensor | None]:
    """`tensors` as a kernel reads them, and None for each that is missing."""
    return [*_ready(*tensors), *[None] * (count - len(tensors))]


def _read_out_forward(
    heads: list[Tensor], gate: Tensor | None, weights: list[Tensor], eps: float, bonus_first: bool, out: Tensor
) -> None:
    rows, width, grid, tile = _heads(heads[1], heads[1].shape[-1])
    bonus, weight, bias = _ready(*weights)
    tensors = [*_ready(*heads), bonus, *_ready(gate), weight, bias, out]
    launch(elementwise.read_out_forward, grid, *tensors, rows, width, eps, BONUS_FIRST=bonus_first, **tile)


def _read_out_backward(
    heads: list[Tensor],
    gate: Tensor | None,
    weights: list[Tensor],
    eps: float,
    bonus_first: bool,
    gradient: Tensor,
    to_heads: list[Tensor],
    to_gate: Tensor | None,
    sums: Tensor,
) -> None:
    rows, width, grid, tile = _heads(heads[1], heads[1].shape[-1])
    bonus, weight, bias = _ready(*weights)
    tensors = [*_ready(*heads), bonus, *_ready(gate), weight, bias, *_ready(gradient), *to_heads, to_gate, sums]
    launch(elementwise.read_out_backward, grid, *tensors, rows, width, eps, BONUS_FIRST=bonus_first, **tile)


def _squared_relu_forward(x: Tensor, y: Tensor) -> None:
    grid = (triton.cdiv(x.numel(), SIZE),)
    launch(elementwise.squared_relu_forward, grid, x.contiguous(), y, x.numel(), SIZE=SIZE)


def _squared_relu_backward(x: Tensor, gradient: Tensor, to_x: Tensor) -> None:
    grid, inputs = (triton.cdiv(x.numel(), SIZE),), (x.contiguous(), gradient.contiguous(), to_x, x.numel())
    launch(elementwise.squared_relu_backward, grid, *inputs, SIZE=SIZE)


def _cross_entropy_forward(logits: Tensor, targets: Tensor, *results: Tensor) -> None:
    inputs, V = (logits.contiguous(), targets.contiguous()), logits.shape[1]
    launch(entropy.forward, (len(logits),), *inputs, *results, V, SIZE=_row_part(V))


def _cross_entropy_backward(
    logits: Tensor, targets: Tensor, norms: Tensor, tops: Tensor, places: Tensor, gradient: Tensor, l2wrap: float,
    to_logits: Tensor,
) -> None:  # fmt: skip
    inputs, V = (logits.contiguous(), targets.contiguous(), norms, tops, places, gradient), logits.shape[1]
    launch(entropy.backward, (len(logits),), *inputs, to_logits, V, l2wrap, SIZE=_row_part(V))


def _row_part(V: int) -> int:
    """How much of a row of logits is looked at at a time."""
    return min(4096, int(triton.next_power_of_2(V)))


cross_entropy = operators.cross_entropy("triton_", _cross_entropy_forward, _cross_entropy_backward)
lerps = operators.lerps("triton_", _lerps_forward, _lerps_backward, num_blocks, DTYPES)
delta_inputs = operators.delta_inputs("triton_", _delta_forward, _delta_backward, num_blocks)
read_out = operators.read_out("triton_", _read_out_forward, _read_out_backward, num_blocks)
squared_relu = operators.squared_relu("triton_", _squared_relu_forward, _squared_relu_backward)
