"""Quantised layers against what they are defined to compute, by the kernels and by PyTorch, with gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from receptance.quant import FORMATS, QuantFactor, QuantLinear, pack, unpack
from receptance.quant import linear as module
from receptance.quant.linear import round_inputs

every_layer = pytest.mark.parametrize(
    ("format", "by_input"), [(name, side) for name in FORMATS for side in (False, True)], ids=str
)


def layer_of(format: str, by_input: bool, num_out: int = 100, num_in: int = 96) -> QuantLinear:
    plain = nn.Linear(num_in, num_out)
    return QuantLinear(pack(plain.weight.detach(), FORMATS[format], by_input), plain.bias, torch.float32)


def defined(layer: QuantLinear, x: torch.Tensor, by_input: bool) -> torch.Tensor:
    """In float64."""
    rows = x.flatten(0, -2)
    rows = rows.double() if by_input else round_inputs(rows.float()).double()
    y = rows @ unpack(layer.matrix).double().T + layer.bias.double()
    return y.view(*x.shape[:-1], layer.out_features)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(96,), (1, 1, 96), (32, 96), (3, 20, 96)], ids=str)
@torch.no_grad()
def test_outputs_are_those_of_rounded_inputs(
    format: str, by_input: bool, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    layer, x = layer_of(format, by_input), torch.randn(shape).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and y.shape == (*shape[:-1], 100)
    tolerance = 4 * torch.finfo(dtype).eps
    x = x[None] if x.dim() == 1 else x
    truth = defined(layer, x, by_input).view(y.shape)
    torch.testing.assert_close(y.double(), truth, rtol=tolerance, atol=max(1e-6, tolerance))


@every_layer
@torch.no_grad()
def test_without_numba_the_same_comes_out(format: str, by_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(format, by_input), torch.randn(4, 96)
    with_kernel = layer(x)
    monkeypatch.setattr(module.cpu, "refusal", lambda: "there is none")
    torch.testing.assert_close(layer(x), with_kernel, rtol=1e-5, atol=1e-5)


@every_layer
def test_a_weight_in_many_pieces_is_the_same(format: str, by_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(format, by_input, num_out=300), torch.randn(40, 96)
    whole = layer(x)
    monkeypatch.setattr(module, "PIECE", 1)
    assert len(list(module.pieces(layer.matrix, torch.float32))) == 3
    torch.testing.assert_close(layer(x), whole, rtol=1e-5, atol=1e-6)


@every_layer
@pytest.mark.parametrize("rows", [1, 50])
def test_gradients_are_those_of_the_unpacked_weight(format: str, by_input: bool, rows: int) -> None:
    layer, x = layer_of(format, by_input), torch.randn(2, rows, 96, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    layer(x).square().sum().backward()
    nn.functional.linear(other, layer.weight, layer.bias.detach()).square().sum().backward()
    assert x.grad is not None and other.grad is not None
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-4)
    assert layer.bias.grad is not None


def test_it_is_a_linear_layer_to_others() -> None:
    layer = layer_of("int4", False)
    assert isinstance(layer, nn.Linear) and (layer.in_features, layer.out_features) == (96, 100)
    assert layer.weight.shape == (100, 96) and layer.weight.dtype == torch.float32
    assert set(layer.state_dict()) == {"bias", "packed", "scales"}
    assert "int4 by output" in repr(layer)


def test_another_dtype_leaves_the_stored_weights_alone() -> None:
    layer = layer_of("int8", False)
    other = copy.deepcopy(layer).to(torch.float16)
    assert torch.equal(other.scales, layer.scales) and torch.equal(other.packed, layer.packed)
    assert other.weight.dtype == torch.float16 and other.bias.dtype == torch.float16
    assert other.to("meta").scales.is_meta


@torch.no_grad()
def test_a_factor_multiplies_from_the_right() -> None:
    weight, x = torch.randn(96, 32), torch.randn(2, 3, 96)
    factor = QuantFactor(pack(weight.T, FORMATS["int8"]), torch.float32)
    assert factor.shape == weight.shape
    torch.testing.assert_close(x @ factor, x @ weight, rtol=0.02, atol=0.5)
    assert ((x @ factor - x @ weight).square().sum() / (x @ weight).square().sum()) < 2e-4
    with pytest.raises(TypeError):
        _ = factor @ x  # type: ignore[operator]
