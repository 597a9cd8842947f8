"""What this machine can compute on, asked when it is needed and never at import."""

from __future__ import annotations

from typing import Any

import torch

# Instructions with which a CPU multiplies matrices in half precision; without any, PyTorch only imitates it, slowly.
INSTRUCTIONS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}


def default_device() -> torch.device:
    """The first accelerator that PyTorch was built for and finds, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def multiplies(dtype: torch.dtype, device: torch.device | str = "cpu") -> bool:
    """Whether the device has instructions for matrix products in `dtype`."""
    kind = torch.device(device).type
    if dtype not in INSTRUCTIONS:
        return True
    if kind == "cuda":
        return dtype == torch.float16 or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return True
    # PyTorch before 2.10 cannot say; float32 is always right.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in INSTRUCTIONS[dtype])
