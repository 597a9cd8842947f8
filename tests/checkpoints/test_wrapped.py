"""Models inside torch.compile and DistributedDataParallel: saved without their wrapper, read in spite of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from receptance import CheckpointError, build
from receptance.checkpoints import load_model, open_checkpoint, save_checkpoint
from receptance.models import RWKV

from .weights import CONFIGS, official_weights, same


class Parallel(nn.Module):
    """Holds a model as DistributedDataParallel does, which would need a group of processes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.fixture
def model() -> RWKV:
    return build(CONFIGS["6"])


def test_a_wrapped_model_is_saved_as_itself(model: RWKV, tmp_path: Path) -> None:
    expected = dict(model.state_dict())
    for wrapped in (
        torch.compile(model),
        Parallel(model),
        torch.compile(Parallel(model)),
        Parallel(torch.compile(model)),
    ):
        save_checkpoint(wrapped, tmp_path / "model.pth")
        assert same(torch.load(tmp_path / "model.pth", weights_only=True), expected)


def test_layers_may_be_compiled_one_by_one(model: RWKV, tmp_path: Path) -> None:
    expected = dict(model.state_dict())
    model.blocks[1] = torch.compile(model.blocks[1])
    assert any("_orig_mod" in name for name in model.state_dict())
    save_checkpoint(model, tmp_path / "model.pth")
    assert same(torch.load(tmp_path / "model.pth", weights_only=True), expected)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_files_of_a_wrapped_model_are_read(prefix: str, tmp_path: Path) -> None:
    for version in ("4", "7"):
        weights = official_weights(CONFIGS[version])
        torch.save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "model.pth")
        assert open_checkpoint(tmp_path / "model.pth").config == CONFIGS[version]
        assert same(dict(load_model(tmp_path / "model.pth").state_dict()), weights)


def test_a_prefix_of_some_names_is_no_wrappers(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["7"])
    weights["module.head.weight"] = weights.pop("head.weight")
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"lacks head\.weight"):
        open_checkpoint(tmp_path / "model.pth")


def test_other_tensors_are_a_sentence_before_anything_is_written(model: RWKV, tmp_path: Path) -> None:
    model.register_buffer("mean", torch.zeros(3))
    with pytest.raises(CheckpointError, match="the model has the tensor mean, unlike any RWKV-6"):
        save_checkpoint(model, tmp_path / "model.pth")
    del model.mean
    model.head = nn.Linear(24, 60, bias=False)
    with pytest.raises(CheckpointError, match=r"head\.weight of the model has not the shape"):
        save_checkpoint(model, tmp_path / "model.pth")
    model.head = nn.Identity()
    with pytest.raises(CheckpointError, match=r"lacks the tensor head\.weight"):
        save_checkpoint(model, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="a model of the kind Linear, only an RWKV"):
        save_checkpoint(nn.Linear(3, 3), tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())
