"""Generation and sizes are read off names and shapes; what only looks like a model is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from receptance import CheckpointError, Config
from receptance.checkpoints import open_checkpoint
from receptance.checkpoints.detect import RELATIVES, detect
from receptance.models import RWKV

from .weights import CONFIGS, VERSIONS, official_shapes, official_weights, unused_weights


def shapes_only(config: Config) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in official_shapes(config).items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_names_and_shapes_are_the_official_ones(version: str) -> None:
    with torch.device("meta"):
        state_dict = RWKV(CONFIGS[version]).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state_dict.items()} == official_shapes(CONFIGS[version])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_size_is_found(version: str) -> None:
    assert detect(shapes_only(CONFIGS[version])) == CONFIGS[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_layer_is_enough(version: str) -> None:
    # What cannot be seen of a single layer of RWKV-7 is a rank that it does not use.
    config = dataclasses.replace(CONFIGS[version], num_layers=1, value_rank=0)
    assert detect(shapes_only(config)) == config


# Not heads of one channel, where RWKV-5.2's decay would look like RWKV-5.1's.
@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("version", ["5.0", "5.1", "5.2", "6", "7"])
def test_head_sizes(version: str, heads: int) -> None:
    config = dataclasses.replace(CONFIGS[version], attention_dim=24, head_size=24 // heads)
    assert detect(shapes_only(config)) == config


def test_the_unused_tensors_of_layer_0_change_nothing(tmp_path: Path) -> None:
    config = CONFIGS["7"]
    unused = unused_weights(config)
    torch.save(official_weights(config) | unused, tmp_path / "model.pth")
    checkpoint = open_checkpoint(tmp_path / "model.pth")
    assert checkpoint.config == config
    assert checkpoint.unused == list(unused)


PRESETS = ("rwkv4-14b", "rwkv5-7b", "rwkv6-7b", "rwkv7-0.1b", "rwkv7-13.3b")


@pytest.mark.parametrize("name", PRESETS)
def test_released_sizes_are_found(name: str) -> None:
    assert detect(shapes_only(Config.preset(name))) == Config.preset(name)


# One telling tensor of each relative, in a file that otherwise is a model.
RELATIVES_TENSORS = {
    "RWKV-4a (tiny attention)": ("4", "blocks.1.tiny_q.weight"),
    "RWKV-4b": ("4", "blocks.0.att.qq.weight"),
    "RWKV-7a (DeepEmbed)": ("7", "blocks.0.ffn.s_emb.weight"),
    "RWKV-7b (DeepEmbedAttention)": ("7", "blocks.0.qkv.qq.weight"),
    "RWKV-8": ("7", "blocks.0.ffn.enn.weight"),
    "RWKV with a channel mix before the first block": ("4", "blocks.0.ffnPre.key.weight"),
    "RWKV with position embeddings": ("4", "blocks.0.pos_emb_x"),
    "RWKV with a copying head": ("4", "head_q.weight"),
}


def test_every_relative_has_a_test() -> None:
    assert RELATIVES_TENSORS.keys() == {kind for kind, _ in RELATIVES}


@pytest.mark.parametrize("kind", RELATIVES_TENSORS)
def test_relatives_are_named(kind: str) -> None:
    version, name = RELATIVES_TENSORS[kind]
    tensors = shapes_only(CONFIGS[version]) | {name: torch.empty(3, 3, device="meta")}
    with pytest.raises(CheckpointError) as refusal:
        detect(tensors)
    assert kind in str(refusal.value)


@pytest.mark.parametrize("name", ["blocks.0.rosa.weight", "blocks.0.ln3.weight"])
def test_the_demonstrations_of_rwkv_8_are_named(name: str) -> None:
    with pytest.raises(CheckpointError, match="RWKV-8"):
        detect(shapes_only(CONFIGS["7"]) | {name: torch.empty(3, device="meta")})


def test_7b_is_not_taken_for_7a() -> None:
    both = {name: torch.empty(3, 3, device="meta") for name in ("blocks.0.ffn.s_emb.weight", "blocks.0.qkv.qq.weight")}
    with pytest.raises(CheckpointError, match="RWKV-7b"):
        detect(shapes_only(CONFIGS["7"]) | both)


SIZES = {"4v0-660K": ("4", 4, 128), "5v2-730K": ("5.2", 12, 64), "6v0-1m": ("6", 12, 64)}


@pytest.mark.parametrize("name", SIZES)
def test_small_models_that_others_trained(name: str, fixtures: Path) -> None:
    config = open_checkpoint(fixtures / "tiny" / f"tiny-rwkv-{name}-FP32.pth").config
    assert (config.version, config.num_layers, config.dim) == SIZES[name]
    assert config.version == "4" or config.head_size == 8


def test_a_part_of_a_model_is_refused_by_the_name_of_what_it_lacks(fixtures: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks blocks\.0\.ln0\.weight .* not a whole RWKV-7 language model"):
        open_checkpoint(fixtures / "reverse" / "260123_reverse_L2_only_rwkv7.blinkdl.pth")
