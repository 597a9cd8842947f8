"""Loading: dtypes, devices, overrides, memory mapping, state files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

import receptance
from receptance import CheckpointError, ConfigError, build
from receptance.checkpoints import convert, load_model, open_checkpoint, read_state_tensors, save_checkpoint
from receptance.checkpoints.checkpoint import shapes_of
from receptance.errors import InputError
from receptance.models import RWKV

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


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", ["model.pth", "copy.safetensors"])
def test_changing_a_loaded_model_does_not_change_the_file(name: str, mmap: bool, saved: Path) -> None:
    path = saved.parent / name
    if not path.exists():
        convert(saved, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_model(path, mmap=mmap)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    del model
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert load_model(path).head.weight.abs().max() > 0


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_loaded_model_can_be_saved_over_its_own_file(dtype: torch.dtype | None, saved: Path) -> None:
    expected = torch.load(saved, weights_only=True)
    # In a process of its own: while weights are mapped from the file, this ends Python.
    script = (
        "import sys, torch, receptance\n"
        f"lm = receptance.load(sys.argv[1], dtype={dtype})\n"
        "torch.save(lm.model.state_dict(), sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", script, str(saved)], check=True)
    loaded = torch.load(saved, weights_only=True)
    assert same({name: tensor.bfloat16() for name, tensor in loaded.items()}, expected)


def is_file_backed(model: RWKV, path: Path) -> bool:
    """Whether a weight lies in a mapping of the file, by the system's own list of them."""
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path.name)]
    ends = [[int(end, 16) for end in span[0].split("-")] for span in spans]
    return any(first <= p.data_ptr() < last for p in model.parameters() for first, last in ends)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the mappings of a process from /proc")
def test_weights_stay_in_the_file_only_when_asked(saved: Path) -> None:
    assert not is_file_backed(load_model(saved), saved)
    assert not is_file_backed(receptance.load(saved, dtype="bfloat16", device="cpu").model, saved)
    assert is_file_backed(load_model(saved, mmap=True), saved)
    assert is_file_backed(receptance.load(saved, dtype="bfloat16", device="cpu", mmap=True).model, saved)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_model_goes_over_its_own_file_by_save_checkpoint(mmap: bool, saved: Path) -> None:
    expected = torch.load(saved, weights_only=True)
    save_checkpoint(load_model(saved, mmap=mmap), saved)
    assert same(torch.load(saved, weights_only=True), expected)


def test_two_models_of_one_checkpoint_share_nothing(tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS["4"]), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    checkpoint = open_checkpoint(tmp_path / "old.pth")
    first, second = load_model(checkpoint), load_model(checkpoint)
    torch.nn.init.zeros_(first.head.weight)
    assert second.head.weight.abs().max() > 0


def test_dtypes_may_be_named(saved: Path) -> None:
    assert load_model(saved, dtype="float32").head.weight.dtype == torch.float32
    convert(saved, saved.parent / "half.pth", dtype="float16")
    assert torch.load(saved.parent / "half.pth", weights_only=True)["head.weight"].dtype == torch.float16
    for dtype in ("int8", "half", torch.int8):
        for go in (lambda d: load_model(saved, dtype=d), lambda d: convert(saved, saved.parent / "c.pth", dtype=d)):
            with pytest.raises(InputError, match="is no dtype of a model"):
                go(dtype)


def test_shapes_are_those_of_the_whole_model() -> None:
    for config in CONFIGS.values():
        for layers in (1, 2, 5):
            config = config.replace(num_layers=layers)
            with torch.device("meta"):
                whole = RWKV(config).state_dict()
            assert shapes_of(config) == {name: tensor.shape for name, tensor in whole.items()}


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
