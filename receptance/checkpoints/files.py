"""One file of tensors: told by its first bytes, opened without reading a weight.

file = open_file(path)
file.tensors["emb.weight"].shape        # nothing is read for this
file.read("emb.weight")                 # mapped into memory, copied only where it is written to
"""

from __future__ import annotations

import math
import mmap
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..devices import dtype_name
from ..errors import CheckpointError


class TensorFile(Protocol):
    """What every reader offers."""

    @property
    def path(self) -> Path:
        """The file itself."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Name as stored -> a tensor of the right shape and dtype, whose numbers may be absent."""

    def read(self, name: str) -> Tensor:
        """One tensor with its numbers, on the CPU."""


class Item(NamedTuple):
    """A tensor to be written: `like` tells shape and dtype beforehand, `item.tensor()` is called once, in order."""

    name: str
    like: Tensor
    tensor: Callable[[], Tensor]


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Beyond any model's tensors, and small enough that nothing computed from them overflows.
MAX_NUMBERS, MAX_DIMENSIONS = 2**48, 8

# How files begin that people mistake for checkpoints, or that we cannot read.
_FOREIGN = {
    b"fmgg": "is an rwkv.cpp file, which cannot be read; use the checkpoint that it was made from",
    b"lmgg": "is an rwkv.cpp file, which cannot be read; use the checkpoint that it was made from",
    b"version https://git-lfs": "is only a pointer to a file in Git LFS; fetch the file itself with `git lfs pull`",
    b"<!": "is a web page and no checkpoint; download the file itself, not the page that shows it",
    b"<html": "is a web page and no checkpoint; download the file itself, not the page that shows it",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"7z": "is compressed with 7-Zip; unpack it first",
}


def open_file(path: Path) -> TensorFile:
    """Open a `.pth`, `.safetensors` or `.gguf` file, whatever its ending says.  Raises CheckpointError for others."""
    from .gguf import MAGIC, GgufFile
    from .pth import open_pth
    from .safetensors import SafetensorsFile, begins_safetensors

    try:
        # Asked first, because opening a pipe waits for somebody to write to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path} is no ordinary file; give a file or a folder")
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if not start:
        raise CheckpointError(f"{path} is empty; download or save it again")
    # First, because these begin with a length, whose bytes can be those that mark any other kind of file.
    if begins_safetensors(start):
        return SafetensorsFile(path)
    if start.startswith(MAGIC):
        return GgufFile(path)
    for beginning, sentence in _FOREIGN.items():
        if start.lower().startswith(beginning.lower()):
            raise CheckpointError(f"{path} {sentence}")
    if start.startswith((b"PK", b"\x80")):
        return open_pth(path)
    raise CheckpointError(f"{path} is no checkpoint: it is no .pth, .safetensors or .gguf file")


def check_dtype(path: Path, name: str, dtype: torch.dtype) -> None:
    """Raise CheckpointError for numbers that are no plain floating point ones, as quantised files hold."""
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{path} holds {name} as {dtype_name(dtype)}, which cannot be read; "
            f"use a checkpoint in float32, bfloat16 or float16"
        )


def is_possible(shape: Sequence[object]) -> bool:
    """Whether a shape from outside can be a tensor's at all."""
    sizes = [size for size in shape if type(size) is int and size >= 0]
    if len(sizes) < len(shape) or len(shape) > MAX_DIMENSIONS:
        return False
    # Strides are products of sizes: those beside a 0 can overflow, though there is not one number.
    return math.prod(max(size, 1) for size in sizes) < MAX_NUMBERS


def mapped(path: Path, start: int, size: int, dtype: torch.dtype) -> Tensor:
    """The numbers in `size` bytes of a file, [size / width of dtype], read when they are used and copied when changed.

    Raises OSError or ValueError where the file is shorter.
    """
    if size == 0:
        return torch.empty(0, dtype=dtype)
    # One mapping for each tensor: the system may refuse to map a whole file that is larger than its memory.
    page = start - start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), start - page + size, access=mmap.ACCESS_COPY, offset=page)
    numbers = torch.frombuffer(view, dtype=torch.uint8, count=size, offset=start - page)
    if numbers.data_ptr() % dtype.itemsize:
        numbers = numbers.clone()
    return numbers.view(dtype)


def as_bytes(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as they are written, in order, without a copy where they lie in order already."""
    numbers: Any = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(numbers)
