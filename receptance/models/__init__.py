"""The models: one skeleton (`rwkv.py`) and one file for each generation, to be read beside its paper.

model = build(Config.preset("rwkv7-0.1b"))
logits, state = model(tokens)
"""

from __future__ import annotations

import torch

from ..config import Config
from ..devices import as_device, as_dtype
from ..errors import InputError
from .rwkv import RWKV, Block, flops_per_token, num_parameters
from .versions import PARTS

__all__ = ["PARTS", "RWKV", "Block", "build", "flops_per_token", "num_parameters"]


def build(
    config: Config,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = torch.float32,
    emb_scale: float = 1e-4,
) -> RWKV:
    """A new model with the official initialisation; `torch.manual_seed` before it makes it repeatable.

    `emb_scale` bounds the uniform embedding: 1e-4 since RWKV-5; RWKV-4's trainer took its initial learning rate here.
    Raises InputError for a dtype or device that is none, and for anything but a Config.
    """
    if not isinstance(config, Config):
        raise InputError(f"a model is built from a Config, got {config!r}; Config.preset knows released ones by name")
    with torch.device("meta"):
        model = RWKV(config)
    model = model.to(as_dtype(dtype)).to_empty(device=as_device(device))
    model.reset_parameters(emb_scale)
    return model
