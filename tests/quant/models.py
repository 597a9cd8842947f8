"""Small models whose matrices can all be quantised, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import torch

from receptance import RWKV, Config
from receptance.checkpoints import save_checkpoint
from receptance.config import VERSIONS
from tests.models.cases import noisy

CONFIGS = {
    version: Config(version=version, vocab_size=70, num_layers=2, dim=64, head_size=32, ffn_dim=96)
    for version in VERSIONS
}


def model_of(version: str, dtype: torch.dtype = torch.float32) -> RWKV:
    """A model of this generation with random weights."""
    return noisy(CONFIGS[version], dtype, strength=0.1)


def saved(folder: Path, version: str = "7", dtype: torch.dtype = torch.float32, name: str = "model.pth") -> Path:
    """The same in a file."""
    save_checkpoint(model_of(version, dtype), folder / name)
    return folder / name


def logits_of(model: RWKV, rows: int = 2, length: int = 40) -> torch.Tensor:
    """What it foretells of some tokens."""
    tokens = torch.arange(rows * length).view(rows, length) * 7 % model.config.vocab_size
    with torch.no_grad():
        logits: torch.Tensor = model(tokens)[0]
    return logits
