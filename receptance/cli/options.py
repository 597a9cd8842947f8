"""What several commands take: a model, and a dtype by name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MODEL_HELP = "A file, a folder, a hub id, or `repo:file`."


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
