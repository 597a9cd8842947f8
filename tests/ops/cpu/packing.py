"""Matrices in every format of the products, with the weight in float64 that they stand for, one number at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from receptance.ops.cpu.products import BFLOAT16, BY_INPUT, FLOAT32, INT4, INT8

FORMATS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8, "int4": INT4}
KINDS = {
    f"{name}-by-{side}": format + offset
    for name, format in FORMATS.items()
    for side, offset in (("output", 0), ("input", BY_INPUT))
}


class Matrix(NamedTuple):
    """A stored weight and what it means."""

    kind: int
    weights: Tensor
    scales: Tensor | None
    num_out: int
    num_in: int
    meaning: np.ndarray  # [out, in] float64

    @property
    def arguments(self) -> tuple[int, Tensor, Tensor | None, int, int]:
        """What `product` and `dequantize` take after x."""
        return self.kind, self.weights, self.scales, self.num_out, self.num_in


def random_matrix(kind: int, num_out: int, num_in: int, seed: int = 0) -> Matrix:
    """A random matrix of a kind."""
    random = np.random.default_rng(seed)
    by_input, format = kind >= BY_INPUT, kind % BY_INPUT
    if format in (FLOAT32, BFLOAT16):
        dtype = torch.float32 if format == FLOAT32 else torch.bfloat16
        weight = torch.from_numpy(random.standard_normal((num_out, num_in)).astype(np.float32)).to(dtype)
        stored = _in_panels(weight.float().numpy(), 0.0).to(dtype) if by_input else weight
        return Matrix(kind, stored, None, num_out, num_in, weight.double().numpy())
    limit = (-127, 128) if format == INT8 else (-8, 8)
    q = random.integers(*limit, (num_out, num_in))
    pack = (_by_input if by_input else _by_output)[format]
    groups = -(-num_out // 128) * 4 * num_in if by_input else -(-num_out // 16) * 16 * (num_in // 32)
    scales = torch.from_numpy(random.uniform(0.01, 0.1, groups).astype(np.float32)).bfloat16()
    scales = scales.view(-1, num_in, 4) if by_input else scales.view(-(-num_out // 16), num_in // 32, 16)
    meaning = q.astype(np.float64)
    s = scales.double().numpy()
    for o in range(num_out):
        if by_input:
            meaning[o] *= s[o // 128, :, o % 128 // 32]
        else:
            meaning[o] *= np.repeat(s[o // 16, :, o % 16], 32)
    return Matrix(kind, torch.from_numpy(pack(q)), scales, num_out, num_in, meaning)


def _int8_by_output(q: np.ndarray) -> np.ndarray:
    num_out, num_in = q.shape
    packed = np.full((-(-num_out // 16), num_in // 32, 8, 16, 4), 128, np.uint8)
    for o in range(num_out):
        packed[o // 16, :, :, o % 16] = (q[o] + 128).reshape(num_in // 32, 8, 4)
    return packed


def _int4_by_output(q: np.ndarray) -> np.ndarray:
    num_out, num_in = q.shape
    packed = np.full((-(-num_out // 16), num_in // 32, 4, 16, 4), 0x88, np.uint8)
    for o in range(num_out):
        low_high = (q[o] + 8).reshape(num_in // 32, 4, 2, 4)
        packed[o // 16, :, :, o % 16] = low_high[:, :, 0] | low_high[:, :, 1] << 4
    return packed


def _in_panels(weight: np.ndarray, padding: float) -> Tensor:
    num_out, num_in = weight.shape
    panels = np.full((-(-num_out // 128), num_in, 128), padding, weight.dtype)
    for o in range(num_out):
        panels[o // 128, :, o % 128] = weight[o]
    return torch.from_numpy(panels)


def _int8_by_input(q: np.ndarray) -> np.ndarray:
    return _in_panels((q + 128).astype(np.uint8), 128).numpy()


def _int4_by_input(q: np.ndarray) -> np.ndarray:
    num_out, num_in = q.shape
    words = np.full((-(-num_out // 128), num_in, 16), 0x88888888, np.uint32)
    for o in range(num_out):
        panel, n, lane = o // 128, o % 128 // 16, o % 16
        words[panel, :, lane] ^= ((q[o] + 8) ^ 8).astype(np.uint32) << np.uint32(4 * n)
    return words.astype("<u4").view(np.uint8).reshape(-1, num_in, 16, 4)


_by_output = {INT8: _int8_by_output, INT4: _int4_by_output}
_by_input = {INT8: _int8_by_input, INT4: _int4_by_input}
