"""Small models of every generation with no matrix left at zero."""

from __future__ import annotations

import torch

from receptance import RWKV, Config, State, build
from receptance.config import VERSIONS

CONFIGS = {version: Config(version=version, vocab_size=31, num_layers=2, dim=16, head_size=8) for version in VERSIONS}
CONFIGS["5.0 log bonus"] = CONFIGS["5.0"].replace(log_bonus=True)
CONFIGS["4 wide"] = CONFIGS["4"].replace(attention_dim=24, ffn_dim=40)
CONFIGS["6 wide"] = CONFIGS["6"].replace(attention_dim=24, mix_rank=5, decay_rank=7)


def noisy(config: Config, dtype: torch.dtype = torch.float32, strength: float = 0.2) -> RWKV:
    """A model with the official initialisation and noise on everything: no matrix stays zero and hides an error."""
    torch.manual_seed(0)
    model = build(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=strength)
    return model.eval()


def small(name: str, dtype: torch.dtype = torch.float64) -> RWKV:
    """The noisy model of `CONFIGS[name]`."""
    return noisy(CONFIGS[name], dtype)


def used(model: RWKV, rows: int) -> State:
    """A state in which something has been read."""
    with torch.no_grad():
        return model(torch.randint(model.config.vocab_size, (rows, 9)).to(model.emb.weight.device))[1]
