"""Models that speak nonsense at once: `python -m tests.small_models quickstart/model.pth little-chat/model.pth`.

The documentation runs it in place of what trains a model for minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from receptance import RWKV, Config
from receptance.checkpoints import save_checkpoint

from .models.cases import noisy

CONFIG = Config(version="7", vocab_size=256, num_layers=2, dim=32, head_size=16)
PRINTED = range(ord(" "), ord("~") + 1)


def speaking() -> RWKV:
    """A byte model whose words mean nothing, but which says printed letters only and never comes to an end."""
    model = noisy(CONFIG, strength=0.1)
    with torch.no_grad():
        # One channel is the same in every place, and the head looks at it.
        model.ln_out.weight[0], model.ln_out.bias[0] = 0.0, 1.0
        model.head.weight[:, 0] = -20.0
        model.head.weight[PRINTED.start : PRINTED.stop, 0] = 0.0
    return model


if __name__ == "__main__":
    model = speaking()
    for name in sys.argv[1:]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(model, name)
