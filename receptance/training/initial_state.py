"""The state that every sequence begins with, as the one thing that is learnt: state tuning.

    initial = InitialState(model)
    Trainer(model.requires_grad_(False), text, recipe, initial=initial).train()
    initial.save(Path("state.pth"))                        # as the official trainers write it

Only the recurrent matrices are learnt; the token shift begins at zero, as in the official form.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..checkpoints import write_state_tensors
from ..config import Config
from ..errors import ConfigError
from ..models import RWKV
from ..state import State


class InitialState(nn.Module):
    """Makes the state of any number of rows that begin.

    time_state [L, H, N, N]   the matrices S[v, k], float32

    Raises ConfigError for RWKV-4, which has no matrices.
    """

    def __init__(self, model: RWKV) -> None:
        super().__init__()
        self.config: Config = model.config
        if self.config.version == "4":
            raise ConfigError("the state of RWKV-4 has no matrices to tune; take lora, or a later generation")
        shape = (self.config.num_layers, *self.config.state_shape)
        self.time_state = nn.Parameter(torch.zeros(shape, device=model.emb.weight.device))

    def forward(self, rows: int) -> State:
        """The state of `rows` sequences."""
        empty = State.zeros(self.config, rows, self.time_state.device)
        return State(empty.shift, self.time_state[:, None].expand(-1, rows, -1, -1, -1))

    def save(self, path: Path) -> None:
        """Write `blocks.N.att.time_state [H, N, N]`, which the official runtimes read.

        Raises CheckpointError where it cannot be written.
        """
        layers = {f"blocks.{n}.att.time_state": layer for n, layer in enumerate(self.time_state.detach())}
        write_state_tensors(path, layers)
