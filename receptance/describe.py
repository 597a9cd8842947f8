"""What a checkpoint and a machine are, as values to print or to compute with; no weight is read, nothing is computed.

describe("model.pth").parameters
machine().bf16_products
forms(length=512)["wkv7"]           # [("chunked", None), ("reference", "chunked comes first")]
"""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import ops
from .checkpoints import find, open_checkpoint
from .config import Config
from .devices import dtype_name, multiplies
from .models import RWKV, flops_per_token
from .quant import QuantisedFile, is_quantised_file, open_quantised

LIBRARIES = ("torch", "numpy", "numba", "safetensors", "huggingface_hub", "tokenizers", "triton", "matplotlib", "rwkv")


@dataclass(frozen=True)
class Description:
    """A checkpoint from the outside.

    dialect           whose names and layout the file has
    tensors           official name -> (shape, dtype or format as stored)
    parameters        numbers in the file
    bits_per_weight   of those that are quantised, with their scales; None where none are
    flops_per_token   of one forward pass, two a multiply-add
    state_bytes       one sequence's state in a float32 model
    unused            official names of tensors that the file holds but the model does not use
    """

    path: Path
    dialect: str
    config: Config
    file_bytes: int
    tensors: dict[str, tuple[tuple[int, ...], str]]
    flops_per_token: int
    state_bytes: int
    unused: tuple[str, ...]
    bits_per_weight: float | None = None

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape, _ in self.tensors.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors are stored in each dtype, the most frequent first."""
        return dict(Counter(dtype for _, dtype in self.tensors.values()).most_common())


def describe(path: str | Path) -> Description:
    """Read a checkpoint's header: a file, a folder, a hub id.  Raises CheckpointError for what is none."""
    path = find(path)
    if is_quantised_file(path):
        return _describe_quantised(open_quantised(path))
    checkpoint = open_checkpoint(path)
    with torch.device("meta"):
        model = RWKV(checkpoint.config)
    return Description(
        path=checkpoint.path,
        dialect=checkpoint.dialect,
        config=checkpoint.config,
        file_bytes=_size(checkpoint.path),
        tensors={name: (tuple(tensor.shape), dtype_name(tensor.dtype)) for name, tensor in checkpoint.tensors.items()},
        flops_per_token=flops_per_token(model),
        state_bytes=model.zero_state(1).num_bytes,
        unused=tuple(checkpoint.unused),
    )


def _describe_quantised(found: QuantisedFile) -> Description:
    with torch.device("meta"):
        model = RWKV(found.config)
    stored = {name: matrix.format for name, matrix in found.matrices.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return Description(
        path=found.path,
        dialect="quantised",
        config=found.config,
        file_bytes=_size(found.path),
        tensors={name: (shape, stored.get(name, dtype_name(found.dtype))) for name, shape in shapes.items()},
        flops_per_token=flops_per_token(model),
        state_bytes=model.zero_state(1).num_bytes,
        unused=(),
        bits_per_weight=found.bits_per_weight,
    )


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Machine:
    """What this package finds to compute with; a library that is not installed has the version None."""

    python: str
    platform: str
    libraries: dict[str, str | None]
    cores: int
    threads: int
    vectors: str
    bf16_products: bool
    accelerators: tuple[str, ...]


def machine() -> Machine:
    """Look at this machine."""
    return Machine(
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: _version(name) for name in LIBRARIES},
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        vectors=torch.backends.cpu.get_cpu_capability(),
        bf16_products=multiplies(torch.bfloat16),
        accelerators=_accelerators(),
    )


def _accelerators() -> tuple[str, ...]:
    found = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return (*found, *(["Apple MPS"] if torch.backends.mps.is_available() else []))


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def forms(length: int = 512) -> dict[str, list[tuple[str, str | None]]]:
    """Every form of every op: None where it serves a call of `length` tokens here, else the sentence why it does not.

    Here is the GPU where PyTorch finds one, else the CPU.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {op: ops.explain(op, length, device) for op in ops.FORMS}


def readable_bytes(count: int) -> str:
    """A number of bytes as people say it: `614.4 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
