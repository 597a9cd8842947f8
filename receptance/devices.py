"""What this machine can compute on, asked when it is needed and never at import."""

from __future__ import annotations

import torch


def default_device() -> torch.device:
    """The first accelerator that PyTorch was built for and finds, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def multiplies(dtype: torch.dtype, device: torch.device | str = "cpu") -> bool:
    """Whether the device has instructions for products in `dtype`; without them PyTorch only imitates, slowly."""
    kind = torch.device(device).type
    if dtype in (torch.float32, torch.float64):
        return True
    if kind == "cuda":
        return dtype == torch.float16 or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
