"""What this machine can compute on, asked when it is needed and never at import; and what dtypes are called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from .errors import InputError

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# Instructions with which a CPU multiplies matrices in half precision; without any, PyTorch only imitates it, slowly.
INSTRUCTIONS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as files and options spell it: `float32`."""
    return str(dtype).removeprefix("torch.")


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """One of the dtypes that a model can have, by itself or by its name.  Raises InputError for any other."""
    name = dtype_name(dtype) if isinstance(dtype, torch.dtype) else dtype
    found = {dtype_name(known): known for known in DTYPES}.get(name)
    if found is None:
        raise InputError(f"{dtype!r} is no dtype of a model; choose {', '.join(map(dtype_name, DTYPES))}")
    return found


def as_device(device: torch.device | str) -> torch.device:
    """A device that can be computed on here.  Raises InputError for any other."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is not there"
        raise InputError(f"cannot compute on {device!r}: {reason}") from error
    return found


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


def memory_in_use(device: torch.device | str = "cpu") -> int:
    """Bytes that this process uses right now: of a GPU's memory, else of the machine's; 0 where nobody can tell."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated(device)
    if not sys.platform.startswith("linux"):
        return 0
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024
