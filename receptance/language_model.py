"""What `receptance.load` returns: a model with everything that belongs to it.

    lm = receptance.load("model.pth")
    logits, state = lm.model(tokens)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoints import load_model, open_checkpoint, read_state_tensors
from .config import Config
from .devices import as_device, as_dtype, default_device, multiplies
from .models import RWKV
from .state import State, is_saved_state


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded model.

    model      the `nn.Module`: `model(tokens, state) -> (logits, state)`, in evaluation mode
    path       the file or folder it came from
    """

    model: RWKV
    path: Path

    @property
    def config(self) -> Config:
        """The model's shape."""
        return self.model.config

    def load_state(self, path: str | Path) -> State:
        """A state of one or more rows: what `State.save` wrote, or a state-tuned file of the official trainers.

        Raises StateError where it belongs to another model, CheckpointError where the file holds no state.
        """
        if is_saved_state(path):
            state = State.load(path, self.model)
        else:
            state = State.from_tuned(read_state_tensors(path), self.config)
        weight = self.model.emb.weight
        return state.to(weight.device, weight.dtype)


def load(
    path_or_name: str | Path,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    mmap: bool = False,
    **overrides: Any,
) -> LanguageModel:
    """Load any checkpoint: a `.pth` or `.safetensors` file, a Hugging Face folder, a hub id, `user/repo:file`.

    dtype       `torch.bfloat16` or "bfloat16"; None: as stored, except that a CPU without products in that precision
                computes in float32
    device      None: the GPU where PyTorch finds one, else the CPU
    mmap        leave the weights in the file, as `checkpoints.load_model` says; DANGER: the file must not be written to
                while the model lives, which would end Python without a message
    overrides   `norm_eps`, `group_norm_eps`: what no tensor tells and no file says

    Raises CheckpointError in one sentence where that is not one whole model, InputError for a dtype or device that is
    none.
    """
    checkpoint = open_checkpoint(path_or_name)
    device = as_device(device) if device is not None else default_device()
    if dtype is None:
        dtype = checkpoint.dtype if multiplies(checkpoint.dtype, device) else torch.float32
    dtype = as_dtype(dtype)
    model = load_model(checkpoint, dtype=dtype, device=device, mmap=mmap, **overrides)
    return LanguageModel(model.eval(), checkpoint.path)
