"""Whole models, quantised in place: every generation, what is kept and why, both ways of computing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import receptance
from receptance.checkpoints import save_checkpoint
from receptance.errors import InputError
from receptance.models.layers import Part
from receptance.quant import QuantFactor, QuantLinear, dequantize, is_quantised, quantize, unpack
from receptance.quant.quantize import LIMITS, matrices, quantised_layers

from .models import CONFIGS, logits_of, model_of

every_version = pytest.mark.parametrize("version", CONFIGS)
every_format = pytest.mark.parametrize("to", ["int8", "int4"])


@every_version
@every_format
def test_a_model_foretells_nearly_the_same(version: str, to: str) -> None:
    model = model_of(version)
    before, names = logits_of(model), [matrix.name for matrix in matrices(model)]
    assert quantize(model, to) is model
    after = logits_of(model)
    share = ((after - before).square().sum() / before.square().sum()).item()
    assert 1e-7 < share < (0.005 if to == "int8" else 0.15)
    layers = dict(quantised_layers(model))
    assert layers.keys() == set(names)
    linear = {layer.matrix.format.name for layer in layers.values() if isinstance(layer, QuantLinear)}
    factors = {layer.matrix.format.name for layer in layers.values() if isinstance(layer, QuantFactor)}
    assert linear == {to} and factors == ({"int8"} if version in ("6", "7") else set())
    assert all(layer.error is not None and layer.error < LIMITS[to] for layer in layers.values())


@every_version
def test_every_matrix_is_found(version: str) -> None:
    """All linear layers and whatever is multiplied as `x @ factor`; nothing that is not."""
    model = model_of(version)
    names = {matrix.name for matrix in matrices(model)}
    assert {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)} < names | {""}
    factors = {name for name in names if not name.endswith(".weight")}
    expected = {"6": "time_maa_w1 time_decay_w1 time_decay_w2", "7": "w1 w2 a1 a2 v1 v2 g1 g2"}.get(version, "")
    assert {name.rpartition(".")[2] for name in factors} == set(expected.split())


@every_version
def test_the_matrix_behind_the_squared_relu_is_stored_by_input(version: str) -> None:
    model = quantize(model_of(version), "int8")
    by_input = {name for name, layer in quantised_layers(model) if layer.kind >= 4}
    assert by_input == {f"blocks.{layer}.ffn.value.weight" for layer in range(2)}


@every_version
def test_only_layers_that_exist_are_called_sparse(version: str) -> None:
    parts = [part for part in model_of(version).modules() if isinstance(part, Part)]
    assert any(part.sparse_inputs for part in parts)
    for part in parts:
        assert part.sparse_inputs <= {name for name, layer in part.named_children() if isinstance(layer, nn.Linear)}


@every_version
@every_format
@torch.no_grad()
def test_token_by_token_is_the_same_as_all_at_once(version: str, to: str) -> None:
    model = quantize(model_of(version), to)
    tokens = torch.arange(24).view(2, 12)
    whole, state = model(tokens)
    logits, running = [], None
    for token in tokens.split(1, dim=1):
        step, running = model(token, running)
        logits.append(step)
    # An input that lies between two whole numbers may be rounded to either.
    difference = (torch.cat(logits, 1) - whole).square().sum() / whole.square().sum()
    assert difference < 1e-4
    assert running is not None
    torch.testing.assert_close(running.wkv, state.wkv, rtol=0.1, atol=0.1 * float(state.wkv.std()))


def test_patterns_keep_tensors_as_they_are() -> None:
    model, same = model_of("7"), model_of("7")
    quantize(model, "int4", keep=["head.weight", "blocks.0.*", "*.w1"])
    kept = {name for name, _ in matrices_by_name(model)} - dict(quantised_layers(model)).keys()
    assert "head.weight" in kept and "blocks.1.att.w1" in kept and "blocks.1.att.key.weight" not in kept
    assert torch.equal(model.head.weight, same.head.weight)
    with pytest.raises(InputError, match=r"no tensor is called 'blocks.9.\*'"):
        quantize(same, "int4", keep=["blocks.9.*"])
    assert not is_quantised(same)


def matrices_by_name(model: nn.Module) -> list[tuple[str, object]]:
    dense = [(matrix.name, matrix) for matrix in matrices(model) if matrix.weight.is_floating_point()]
    return [*dense, *quantised_layers(model)]


@every_format
def test_a_matrix_that_would_suffer_keeps_a_higher_precision(to: str) -> None:
    """One channel of the inputs far above the others, which share its scale, and small weights for it."""
    model = model_of("7")
    ln = model.blocks[1].ln2
    with torch.no_grad():
        ln.weight.mul_(1e-3)
        ln.bias.mul_(1e-3)
        ln.bias[5] = 100.0
        # Only in the linear layer that reads this norm; the channel itself means next to nothing to it.
        model.blocks[1].ffn.x_k[..., 5] = 0.0
        model.blocks[1].ffn.key.weight[:, 5] *= 1e-6
    quantize(model, to)
    layers = dict(quantised_layers(model))
    assert "blocks.1.ffn.key.weight" not in layers
    assert isinstance(model.blocks[1].ffn.key.weight, nn.Parameter)
    assert layers["blocks.0.ffn.key.weight"].matrix.format.name == to


def test_outliers_in_the_weights_lead_to_int8() -> None:
    model = model_of("7")
    with torch.no_grad():
        model.blocks[0].att.key.weight[:, ::32] *= 8
        model.blocks[0].att.x_k.fill_(0.5)
        model.blocks[0].ln1.weight[::32] = 1e-3
        model.blocks[0].ln1.bias[::32] = 0.0
    quantize(model, "int4")
    assert dict(quantised_layers(model))["blocks.0.att.key.weight"].matrix.format.name == "int8"


def test_sizes_that_32_does_not_divide_stay_as_they_are() -> None:
    from receptance import Config
    from tests.models.cases import noisy

    model = quantize(noisy(Config(version="4", vocab_size=50, num_layers=1, dim=64, ffn_dim=72)), "int8")
    left = {name for name in ("key", "value") if not isinstance(getattr(model.blocks[0].ffn, name), QuantLinear)}
    assert left == {"value"}


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(InputError, match="choose int8 or int4"):
        quantize(model_of("7"), "int5")
    with pytest.raises(InputError, match="quantised already"):
        quantize(quantize(model_of("7"), "int8"), "int4")
    broken = model_of("7")
    with torch.no_grad():
        broken.blocks[1].att.value.weight[3, 4] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        quantize(broken, "int8")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_models_of_other_dtypes_can_be_quantised(dtype: torch.dtype) -> None:
    model = model_of("7", dtype)
    before = logits_of(model)
    after = logits_of(quantize(model, "int8"))
    assert after.dtype == dtype
    assert ((after - before).square().sum() / before.square().sum()) < 0.01


def test_gradients_reach_the_embedding_through_all_layers() -> None:
    model = quantize(model_of("7"), "int4").train()
    tokens = torch.arange(20)[None]
    logits, _ = model(tokens)
    logits.square().mean().backward()
    assert model.emb.weight.grad is not None and model.emb.weight.grad[:20].abs().sum(1).min() > 0


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_peft_puts_adapters_beside_quantised_layers(to: str) -> None:
    """An adapter changes nothing until it is trained, and then it is what the model learns with."""
    peft = pytest.importorskip("peft")
    model = quantize(model_of("7"), to).requires_grad_(False)
    before = logits_of(model)
    adapters = peft.LoraConfig(r=2, target_modules=["receptance", "key", "value", "output"])
    adapted = peft.inject_adapter_in_model(adapters, model)
    assert isinstance(adapted.blocks[1].ffn.value.base_layer, QuantLinear)
    assert torch.equal(logits_of(adapted), before)
    learnt = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(learnt) == 2 * 6 * len(model.blocks) and all("lora" in name for name in learnt)
    optimizer, tokens, losses = torch.optim.Adam(learnt.values(), lr=0.01), torch.arange(20)[None], []
    for _ in range(8):
        logits, _ = adapted(tokens)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("version", ["4", "6", "7"])
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_a_model_is_made_ordinary_again(to: str, version: str, tmp_path: Path) -> None:
    """With the values that were left of its matrices: what is trained, converted or saved from then on."""
    model = quantize(model_of(version), to)
    left = {name: unpack(layer.matrix, torch.float32) for name, layer in quantised_layers(model)}
    plain = dequantize(model)
    assert not is_quantised(plain) and all(p.requires_grad for p in plain.parameters())
    for name, weight in left.items():
        stored = plain.get_parameter(name)
        assert torch.equal(stored if name.endswith(".weight") else stored.T, weight)
    save_checkpoint(plain, tmp_path / "plain.pth")
    again = receptance.load(tmp_path / "plain.pth", dtype="float32").model
    assert torch.equal(logits_of(again), logits_of(plain))
