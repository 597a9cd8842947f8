"""Loading: dtypes, devices, overrides, memory mapping, state files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from receptance import CheckpointError, ConfigError, build
from receptance.checkpoints import convert, load_model, open_checkpoint, read_state_tensors

from .weights import CONFIGS, VERSIONS, official_weights, same


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(official_weights(CONFIGS["7"], torch.bfloat16), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_the_dtype_is_the_files_or_the_one_asked_for(saved: Path) -> None:
    assert {p.dtype for p in load_model(saved).parameters()} == {torch.bfloat16}
    for dtype in (torch.float64, torch.float32, torch.float16):
        assert {p.dtype for p in load_model(saved, dtype=dtype).parameters()} == {dtype}


def test_mixed_dtypes_become_the_one_of_most_numbers_unless_asked(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["7"], torch.bfloat16)
    exact = torch.full((1, 1, 24), 1.0001)
    weights["blocks.1.att.w0"] = exact
    torch.save(weights, tmp_path / "mixed.pth")
    checkpoint = open_checkpoint(tmp_path / "mixed.pth")
    assert checkpoint.tensors["blocks.1.att.w0"].dtype == torch.float32
    assert {p.dtype for p in load_model(checkpoint).parameters()} == {torch.bfloat16}
    assert torch.equal(load_model(checkpoint, dtype=torch.float32).state_dict()["blocks.1.att.w0"], exact)
    # A conversion that was not asked to change dtypes keeps them all.
    convert(checkpoint, tmp_path / "mixed.safetensors")
    assert same(load_file(tmp_path / "mixed.safetensors"), weights)


def test_it_can_be_trained(saved: Path) -> None:
    parameters = list(load_model(saved).parameters())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in parameters)


@pytest.mark.parametrize("name", ["model.pth", "copy.safetensors"])
def test_changing_a_loaded_model_does_not_change_the_file(name: str, saved: Path) -> None:
    path = saved.parent / name
    if not path.exists():
        convert(saved, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_model(path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    del model
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert load_model(path).head.weight.abs().max() > 0


def test_a_file_may_be_replaced_by_what_was_loaded_from_it(saved: Path) -> None:
    expected = torch.load(saved, weights_only=True)
    convert(saved, saved)
    assert same(torch.load(saved, weights_only=True), expected)


def test_epsilons_can_be_overridden_and_nothing_else(saved: Path) -> None:
    model = load_model(saved, norm_eps=2e-5, group_norm_eps=1e-5)
    assert (model.config.norm_eps, model.config.group_norm_eps) == (2e-5, 1e-5)
    assert model.blocks[0].ln1.eps == 2e-5
    with pytest.raises(ConfigError, match="head_size cannot be overridden"):
        load_model(saved, head_size=4)


def test_a_tensor_is_read_alone(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    expected = torch.load(saved, weights_only=True)["blocks.2.att.w1"]
    assert torch.equal(checkpoint.tensor("blocks.2.att.w1"), expected)
    assert checkpoint.tensors["blocks.2.att.w1"].device.type == "meta"
    assert checkpoint.dtype == torch.bfloat16


@pytest.mark.parametrize("version", VERSIONS)
def test_a_loaded_model_computes_what_the_saved_one_did(version: str, tmp_path: Path) -> None:
    from receptance.checkpoints import save_checkpoint

    model = build(CONFIGS[version])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        tokens = torch.randint(50, (2, 20))
        expected = model(tokens)[0]
        save_checkpoint(model, tmp_path / "model.safetensors")
        assert torch.equal(load_model(tmp_path / "model.safetensors")(tokens)[0], expected)


# Which group norm epsilon the expected logits of a fixture were made with; the official one is the default.
TINY = {"4v0-660K": {}, "5v2-730K": {"group_norm_eps": 1e-5}, "6v0-1m": {}}


@pytest.mark.parametrize("name", TINY)
def test_trained_models_give_the_logits_that_others_computed(name: str, fixtures: Path) -> None:
    folder = fixtures / "tiny"
    model = load_model(folder / f"tiny-rwkv-{name}-FP32.pth", dtype=torch.float64, **TINY[name])
    expected = torch.from_numpy(numpy.fromfile(folder / f"expected-logits-{name[:3]}-{name[4:]}.bin", dtype="<f4"))
    with torch.no_grad():
        logits = model(torch.tensor([[34, 105, 110]]))[0][0, -1]
    assert float((logits - expected).abs().max()) < 1e-5


def test_state_files(tmp_path: Path) -> None:
    states = {f"blocks.{layer}.att.time_state": torch.randn(3, 8, 8) for layer in range(3)}
    torch.save(states, tmp_path / "state.pth")
    save_file(states, tmp_path / "state.safetensors")
    for name in ("state.pth", "state.safetensors"):
        assert same(read_state_tensors(tmp_path / name), states)


def test_a_model_with_its_tuned_state_in_one_file(tmp_path: Path) -> None:
    states = {f"blocks.{layer}.att.time_state": torch.randn(5, 8, 8) for layer in range(2)}
    torch.save(official_weights(CONFIGS["6"]) | states, tmp_path / "both.pth")
    assert same(read_state_tensors(tmp_path / "both.pth"), states)
    assert open_checkpoint(tmp_path / "both.pth").unused == list(states)
    assert load_model(tmp_path / "both.pth").config == CONFIGS["6"]


def test_a_file_without_a_state(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no state"):
        read_state_tensors(saved)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_state_whose_tuning_went_wrong_is_refused(bad: float, tmp_path: Path) -> None:
    states = {f"blocks.{layer}.att.time_state": torch.randn(3, 8, 8) for layer in range(3)}
    states["blocks.1.att.time_state"][2, 7, 0] = bad
    torch.save(states, tmp_path / "state.pth")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.att\.time_state in .* holds NaN or infinity"):
        read_state_tensors(tmp_path / "state.pth")
