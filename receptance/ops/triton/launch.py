"""How a kernel is started: on the device where its tensors lie, which need not be the current one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["launch"]


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs the programs of a grid; the first argument is a tensor."""
    where: Tensor = arguments[0]
    with torch.cuda.device_of(where):
        kernel[grid](*arguments, **constants)
