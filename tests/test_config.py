"""Sizes: what is filled in, what cannot be, and the released models by name."""

from __future__ import annotations

from typing import Any

import pytest

from receptance import Config, ConfigError
from receptance.config import PRESETS

SMALL: dict[str, Any] = {"vocab_size": 10, "num_layers": 2, "dim": 64}


def test_what_is_left_out_is_what_the_official_code_chooses() -> None:
    assert Config(version="4", **SMALL).ffn_dim == Config(version="7", **SMALL).ffn_dim == 256
    assert Config(version="6", **SMALL | {"dim": 2560}).ffn_dim == 8960
    assert Config(version="5.2", **SMALL | {"dim": 100, "head_size": 10}).ffn_dim == 320
    ranks = {
        width: (config.decay_rank, config.rate_rank, config.value_rank, config.gate_rank)
        for width in (1024, 2048)
        for config in [Config(version="7", **SMALL | {"dim": width})]
    }
    assert ranks == {1024: (64, 64, 64, 160), 2048: (128, 128, 64, 224)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "3"}, "not one of 4, 5.0"),
        ({"dim": 0}, "dim is 0"),
        ({"num_layers": -1}, "whole number"),
        ({"vocab_size": True}, "whole number"),
        ({"dim": 65}, "heads of 64"),
        ({"attention_dim": 128}, "no attention width of its own"),
        ({"log_bonus": True}, "RWKV-7 has none"),
        ({"mix_rank": 32}, "RWKV-7 has no mix_rank"),
        ({"version": "4", "decay_rank": 32}, "RWKV-4 has no decay_rank"),
        ({"norm_eps": -1.0}, "between 0 and 1"),
        ({"group_norm_eps": float("nan")}, "between 0 and 1"),
        ({"norm_eps": "1e-5"}, "between 0 and 1"),
    ],
)
def test_impossible_sizes_are_one_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Config(**{"version": "7", **SMALL, **changes})
    assert "\n" not in str(caught.value)


def test_equal_models_have_equal_configs() -> None:
    """RWKV-4 has no heads and no group norm, and no file tells them."""
    assert Config(version="4", **SMALL, head_size=32, group_norm_eps=1e-5) == Config(version="4", **SMALL)
    config = Config(version="6", **SMALL)
    assert config.replace(num_layers=3).replace(num_layers=2) == config
    assert Config(**config.to_dict()) == config
    with pytest.raises(ConfigError, match="no field depth"):
        config.replace(depth=3)


def test_presets() -> None:
    assert Config.preset("rwkv7-0.1b") is PRESETS["rwkv7-0.1b"]
    assert {config.version for config in PRESETS.values()} == {"4", "5.2", "6", "7"}
    with pytest.raises(ConfigError, match=r"did you mean rwkv7-0\.1b"):
        Config.preset("rwkv7-0.1")
    with pytest.raises(ConfigError, match="known are rwkv4-169m"):
        Config.preset("llama")


def test_state_shapes() -> None:
    assert Config(version="4", **SMALL).state_shape == (3, 64)
    assert Config(version="7", **SMALL, head_size=16).state_shape == (4, 16, 16)
    assert Config(version="4", **SMALL).num_heads == 0
