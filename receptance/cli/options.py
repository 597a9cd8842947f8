"""What several commands take: a model, and a dtype by name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    import torch

MODEL_HELP = "A file, a folder, a hub id, or `repo:file`."


def named(model: str | None) -> str | None:
    """The MODEL as given.  Raises CheckpointError for an empty one, which as a path would be the current folder."""
    if model is not None and not model.strip():
        raise CheckpointError("the name of the model is empty; give a file, a folder or a hub id")
    return model


class Dtype(StrEnum):
    """What `--dtype` accepts; the help page must not load PyTorch to know it."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"

    @property
    def torch(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, self.value)
        return dtype
