"""Random weights under the official names and shapes, written down here a second time, without the model's help."""

from __future__ import annotations

import torch
from torch import Tensor

from receptance import Config

# Small, with every size different from every other, so that no two dimensions can be mistaken for each other.
CONFIGS = {
    "4": Config(version="4", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56),
    "5.0": Config(version="5.0", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56, head_size=8),
    "5.0 log": Config(
        version="5.0", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56, head_size=8, log_bonus=True
    ),
    "5.1": Config(version="5.1", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56, head_size=8),
    "5.1 log": Config(
        version="5.1", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56, head_size=8, log_bonus=True
    ),
    "5.2": Config(version="5.2", vocab_size=50, num_layers=2, dim=24, attention_dim=40, ffn_dim=56, head_size=8),
    "6": Config(
        version="6",
        vocab_size=50,
        num_layers=2,
        dim=24,
        attention_dim=40,
        ffn_dim=56,
        head_size=8,
        mix_rank=3,
        decay_rank=7,
    ),
    "7": Config(
        version="7",
        vocab_size=50,
        num_layers=3,
        dim=24,
        ffn_dim=56,
        head_size=8,
        decay_rank=5,
        rate_rank=6,
        value_rank=7,
        gate_rank=9,
    ),
}
VERSIONS = tuple(CONFIGS)


def official_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official file, as the official trainers save them, without RWKV-7's unused ones."""
    c, v = config.dim, config.vocab_size
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (v, c), "head.weight": (v, c)}
    shapes |= {"ln_out.weight": (c,), "ln_out.bias": (c,)}
    for layer in range(config.num_layers):
        block = f"blocks.{layer}."
        for norm in ["ln0"] * (layer == 0) + ["ln1", "ln2"]:
            shapes |= {f"{block}{norm}.weight": (c,), f"{block}{norm}.bias": (c,)}
        parts = _time_mix(config, layer), _channel_mix(config)
        for part, content in zip(("att", "ffn"), parts, strict=True):
            shapes |= {f"{block}{part}.{name}": shape for name, shape in content.items()}
    return shapes


def _time_mix(config: Config, layer: int) -> dict[str, tuple[int, ...]]:
    c, a, h, n, version = config.dim, config.attention_dim, config.num_heads, config.head_size, config.version
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (a, c) for name in ("receptance", "key", "value")}
    shapes["output.weight"] = (c, a)
    vector = (1, 1, c)
    if version != "4":
        shapes |= {"ln_x.weight": (a,), "ln_x.bias": (a,)}
    if version in ("5.1", "5.2", "6"):
        shapes["gate.weight"] = (a, c)
    if version == "4":
        shapes |= {"time_decay": (a,), "time_first": (a,)}
    if version in ("5.0", "5.1"):
        shapes |= {"time_decay": (h,), "time_first" if config.log_bonus else "time_faaaa": (h,)}
    if version == "5.2":
        shapes |= {"time_decay": (h, n), "time_faaaa": (h, n)}
    if version in ("4", "5.0", "5.1", "5.2"):
        mixes = "kvrg" if version in ("5.1", "5.2") else "kvr"
        shapes |= {f"time_mix_{x}": vector for x in mixes}
    if version == "6":
        shapes |= {f"time_maa_{x}": vector for x in "xwkvrg"}
        shapes |= {"time_maa_w1": (c, 5 * config.mix_rank), "time_maa_w2": (5, config.mix_rank, c)}
        shapes |= {"time_decay_w1": (c, config.decay_rank), "time_decay_w2": (config.decay_rank, a)}
        shapes |= {"time_decay": (1, 1, a), "time_faaaa": (h, n)}
    if version == "7":
        shapes |= {f"x_{x}": vector for x in "rwkvag"} | {name: vector for name in ("k_k", "k_a")}
        shapes["r_k"] = (h, n)
        ranks = {"w": config.decay_rank, "a": config.rate_rank, "v": config.value_rank, "g": config.gate_rank}
        for x, rank in ranks.items():
            if x == "v" and layer == 0:
                continue
            shapes |= {f"{x}1": (c, rank), f"{x}2": (rank, c)}
            if x != "g":
                shapes[f"{x}0"] = vector
    return shapes


def _channel_mix(config: Config) -> dict[str, tuple[int, ...]]:
    c, f = config.dim, config.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {"key.weight": (f, c), "value.weight": (c, f)}
    if config.version == "7":
        return shapes | {"x_k": (1, 1, c)}
    mix = "time_maa" if config.version == "6" else "time_mix"
    return shapes | {"receptance.weight": (c, c), f"{mix}_k": (1, 1, c), f"{mix}_r": (1, 1, c)}


def official_weights(config: Config, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random numbers for all of `official_shapes`, small enough for a model to stay finite."""
    return {name: (torch.randn(shape) / 4).to(dtype) for name, shape in official_shapes(config).items()}


def unused_weights(config: Config) -> dict[str, Tensor]:
    """What official RWKV-7 files hold besides: the value residual of layer 0, which has none."""
    c, rank = config.dim, config.value_rank
    shapes = {"v0": (1, 1, c), "v1": (c, rank), "v2": (rank, c)}
    return {f"blocks.0.att.{name}": torch.randn(shape) for name, shape in shapes.items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit."""
    if ours.keys() != theirs.keys():
        return False
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for a, b in ((ours[name].contiguous(), theirs[name].contiguous()) for name in ours)
    )
