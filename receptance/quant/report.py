"""What became of each matrix of a quantised model, beside the checkpoint that it was made from.

    for entry in matrix_reports(checkpoint, model): print(entry.name, entry.format, entry.weight_error)

What it means for the model's predictions is measured by `evaluation.compare`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..devices import dtype_name
from ..models import RWKV
from .linear import Quantised, pieces
from .quantize import matrices, quantised_layers

__all__ = ["MatrixReport", "matrix_reports"]


@dataclass(frozen=True)
class MatrixReport:
    """A matrix of a quantised model.

    format          "int8", "int4", or a dtype where it was kept
    bits            that a weight takes, with its scale
    weight_error    squared error of the weights, as a share of their squares
    output_error    squared error of the outputs for some tokens, as a share of their squares; None: not measured
    """

    name: str
    format: str
    num_weights: int
    bits: float
    weight_error: float
    output_error: float | None


def matrix_reports(checkpoint: Checkpoint, model: RWKV) -> Iterator[MatrixReport]:
    """What each matrix has become, in the model's order, one after the other so that memory stays small."""
    with torch.device("meta"):
        shapes = {matrix.name: matrix.weight.numel() for matrix in matrices(RWKV(model.config))}
    layers = dict(quantised_layers(model))
    for name, num_weights in shapes.items():
        if name not in layers:
            dtype = checkpoint.tensors[name].dtype
            yield MatrixReport(name, dtype_name(dtype), num_weights, 8 * dtype.itemsize, 0.0, None)
            continue
        layer = layers[name]
        original = checkpoint.tensor(name)
        error = _weight_error(original if isinstance(layer, nn.Linear) else original.mT, layer)
        bits = 8 * (layer.packed.nbytes + layer.scales.nbytes) / num_weights
        yield MatrixReport(name, layer.matrix.format.name, num_weights, bits, error, layer.error)


def _weight_error(original: Tensor, layer: Quantised) -> float:
    wrong = whole = 0.0
    for start, weight in pieces(layer.matrix, torch.float32):
        part = original[start : start + len(weight)].float()
        wrong += float((weight - part).square().sum())
        whole += float(part.square().sum())
    return wrong / whole if whole else 0.0
