"""web-rwkv's `.st`: what its converter makes of official files is read back, and refused where it cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from receptance import CheckpointError
from receptance.checkpoints import load_model, open_checkpoint, read_state_tensors

from .weights import CONFIGS, official_weights, same


def opened(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint.tensors}


def web_rwkv(weights: dict[str, Tensor], squeeze: bool) -> dict[str, Tensor]:
    """What its converter makes of official weights: float16, some names exchanged, low-rank factors transposed."""
    factors = ("time_mix_w1", "time_mix_w2", "time_decay_w1", "time_decay_w2", "w1", "w2", "a1", "a2", "g1", "g2", "v1")
    stored = {}
    for name, tensor in weights.items():
        name = name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix").lower()
        tensor = tensor.half()
        if name.endswith((*factors, "v2", "time_state")):
            tensor = tensor.transpose(-2, -1)
        if squeeze and tensor.shape[:2] == (1, 1):
            tensor = tensor.flatten()
        stored[name] = tensor.contiguous()
    return stored


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_web_rwkv(version: str, squeeze: bool, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS[version], torch.float16)
    save_file(web_rwkv(weights, squeeze), tmp_path / "model.st")
    assert same(opened(tmp_path / "model.st"), weights)
    assert open_checkpoint(tmp_path / "model.st").config == CONFIGS[version]


def test_web_rwkv_gives_rwkv_5_1_a_decay_for_every_channel(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["5.1"], torch.float16)
    spread = dict(weights)
    for name, tensor in weights.items():
        if name.endswith(("time_decay", "time_faaaa")):
            spread[name] = tensor[:, None].repeat(1, 8)
    save_file(web_rwkv(spread, squeeze=False), tmp_path / "model.st")
    tokens = torch.randint(50, (1, 30))
    torch.save(weights, tmp_path / "official.pth")
    with torch.no_grad():
        expected = load_model(tmp_path / "official.pth", dtype=torch.float64)(tokens)[0]
        logits = load_model(tmp_path / "model.st", dtype=torch.float64)(tokens)[0]
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


RANKS = ("decay_rank", "rate_rank", "value_rank", "gate_rank")


@pytest.mark.parametrize("told_by", RANKS)
def test_one_rank_that_is_not_the_width_is_enough(told_by: str, tmp_path: Path) -> None:
    config = CONFIGS["7"].replace(**({rank: 24 for rank in RANKS} | {told_by: 9}))
    weights = official_weights(config, torch.float16)
    save_file(web_rwkv(weights, squeeze=False), tmp_path / "model.st")
    assert same(opened(tmp_path / "model.st"), weights)


def test_factors_that_could_be_transposed_are_refused_in_a_st_alone(tmp_path: Path) -> None:
    config = CONFIGS["7"].replace(**{rank: 24 for rank in RANKS})
    weights = official_weights(config, torch.float16)
    save_file(weights, tmp_path / "model.safetensors")
    assert same(opened(tmp_path / "model.safetensors"), weights)
    (tmp_path / "folder").mkdir()
    for place in (tmp_path, tmp_path / "folder"):
        save_file(web_rwkv(weights, squeeze=False), place / "model.st")
    for path in (tmp_path / "model.st", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match="all ranks are the width"):
            open_checkpoint(path)


@pytest.mark.parametrize("version", ["5.2", "6", "7"])
def test_states_within_a_model_are_turned_back(version: str, tmp_path: Path) -> None:
    config = CONFIGS[version]
    states = {f"blocks.{layer}.att.time_state": torch.randn(config.state_shape).half() for layer in range(2)}
    save_file(web_rwkv(official_weights(config) | states, squeeze=False), tmp_path / "model.st")
    assert same(read_state_tensors(tmp_path / "model.st"), states)
    checkpoint = open_checkpoint(tmp_path / "model.st")
    assert set(checkpoint.unused) == set(states)
    assert all(torch.equal(checkpoint.tensor(name), state) for name, state in states.items())


@pytest.mark.parametrize("name", ["state.st", "tuned.state"])
def test_states_alone_are_refused_as_nothing_tells_their_orientation(name: str, tmp_path: Path) -> None:
    save_file({"blocks.0.att.time_state": torch.randn(3, 8, 8)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="does not tell whether its states are transposed"):
        read_state_tensors(tmp_path / name)
