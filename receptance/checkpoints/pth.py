"""PyTorch's `.pth`, read: weights only, mapped into memory.

open_pth(path).read("emb.weight")

A `.pth` is a zip archive of a pickle and one file for each tensor's numbers.  A pickle names functions to be called,
which could be any; this reader knows a handful of names, and calls functions of its own for them that only take notes.
Files from before PyTorch 1.6 are no archives; torch.load reads those, weights only.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_NUMBERS, TensorFile, check_dtype, is_possible, mapped

# The pickle of the largest models is below 1 MB; a larger one is an attack on our memory or no model.
MAX_PICKLE = 64 * 2**20
# Trainers wrap the tensors in a dict under one of these names.
WRAPPERS = ("state_dict", "model")

# The class that stands for each dtype in a pickle.
STORAGES = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.float16: torch.HalfStorage,
    torch.int64: torch.LongStorage,
    torch.int32: torch.IntStorage,
    torch.int16: torch.ShortStorage,
    torch.int8: torch.CharStorage,
    torch.uint8: torch.ByteStorage,
    torch.bool: torch.BoolStorage,
}


# Length of the header before each entry of a zip archive, without the name and the extra fields behind it.
LOCAL_HEADER = 30


def open_pth(path: Path) -> TensorFile:
    """Open a `.pth` of either kind.  Raises CheckpointError for anything that holds more than tensors."""
    with path.open("rb") as file:
        return PthFile(path) if file.read(2) == b"PK" else OldPthFile(path)


_Kind = TypeVar("_Kind")


class _Numbers(NamedTuple):
    """A storage in the archive, as the pickle describes it."""

    dtype: torch.dtype
    entry: zipfile.ZipInfo


class _Described(NamedTuple):
    """A tensor, as the pickle describes it: a view of a storage."""

    numbers: _Numbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PthFile:
    """A `.pth` archive; `tensors` are on the meta device, and `read` maps one of them into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = _entries(path)
        self._described = _by_name(path, _unpickle(path, entries), _Described)
        for name, tensor in self._described.items():
            check_dtype(path, name, tensor.numbers.dtype)
            _check_bounds(path, name, tensor)
        self.tensors: Mapping[str, Tensor] = {
            name: torch.empty(tensor.shape, dtype=tensor.numbers.dtype, device="meta")
            for name, tensor in self._described.items()
        }

    def read(self, name: str) -> Tensor:
        tensor = self._described[name]
        entry = tensor.numbers.entry
        if 0 in tensor.shape:
            # Where it lies is not checked, and means nothing.
            return torch.empty(tensor.shape, dtype=tensor.numbers.dtype)
        try:
            numbers = mapped(self.path, _content_start(self.path, entry), entry.file_size, tensor.numbers.dtype)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} is cut short or damaged at {name}; download or save it again"
            ) from error
        return numbers.as_strided(tensor.shape, tensor.strides, tensor.offset)


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their name within it.  Raises CheckpointError for archives that are no checkpoints."""
    try:
        with zipfile.ZipFile(path) as archive:
            # All of them lie in one folder, which is called after the file that was written.
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is cut short or damaged; download or save it again") from error
    if "data.pkl" not in entries:
        raise CheckpointError(f"{path} is a zip archive and no checkpoint; unpack it first")
    if "constants.pkl" in entries:
        raise CheckpointError(f"{path} is a TorchScript program, not weights; have its maker save the tensors alone")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise CheckpointError(f"{path} is compressed, as PyTorch never writes it; save it again with torch.save")
    if entries["data.pkl"].file_size > MAX_PICKLE:
        raise CheckpointError(f"{path} has a pickle too large for any model; save the model's state_dict alone")
    return entries


class _ForeignNameError(Exception):
    """The pickle names a function that is not on the list."""


class _Unpickler(pickle.Unpickler):
    """Builds descriptions of tensors.  Nothing that the file names is imported or called."""

    def __init__(self, file: io.BytesIO, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        super().__init__(file)
        self.entries = entries

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _ForeignNameError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Numbers:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError("not a storage")
        return _Numbers(dtype, self.entries[f"data/{key}"])


def _tensor(numbers: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Described:
    steps = (offset, *strides)
    if not isinstance(numbers, _Numbers) or not all(type(step) is int and 0 <= step < MAX_NUMBERS for step in steps):
        raise ValueError("not a tensor")
    if not is_possible(shape) or len(shape) != len(strides):
        raise ValueError("not a tensor")
    return _Described(numbers, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


# What a pickle may name, and what stands for it here.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", storage.__name__): dtype for dtype, storage in STORAGES.items()},
}


# How PyTorch names what it builds other tensors from: complex, sparse, quantised ones, those of eight bits.
_TENSOR_KIND = re.compile(r"torch(\._utils|\._tensor|\.storage)?\.(\w+Storage|_rebuild_\w+)")


def _unpickle(path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if "byteorder" in entries and archive.read(entries["byteorder"]) != sys.byteorder.encode():
                raise CheckpointError(f"{path} was written on a machine with another byte order; convert it there")
            content = io.BytesIO(archive.read(entries["data.pkl"]))
        return _Unpickler(content, entries).load()
    except CheckpointError:
        raise
    except _ForeignNameError as error:
        if _TENSOR_KIND.fullmatch(str(error)):
            raise CheckpointError(
                f"{path} holds tensors of a kind that cannot be read ({error}); save them as plain float32 or bfloat16"
            ) from error
        raise CheckpointError(
            f"{path} asks to run {error}, and no code is run from files; have its maker save the tensors alone"
        ) from error
    except Exception as error:
        # A damaged pickle can fail in any way at all.
        raise CheckpointError(f"{path} is damaged or no checkpoint; download or save it again") from error


def _check_bounds(path: Path, name: str, tensor: _Described) -> None:
    """Raise CheckpointError for a tensor that lies outside its storage, or claims more numbers than that has."""
    room, rest = divmod(tensor.numbers.entry.file_size, tensor.numbers.dtype.itemsize)
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if count and (rest or last >= room or count > room):
        raise CheckpointError(f"{path} has too few numbers for the shape of {name}; it is damaged, save it again")


def _content_start(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins: behind its own header, whose last fields are the lengths of the rest."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise ValueError("no entry here")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + LOCAL_HEADER + lengths


class OldPthFile:
    """A `.pth` that is no archive: all its tensors are in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with warnings.catch_warnings():
                # About storages of an old kind, and nothing that a user could act on.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # It refuses code with an error of its own, and a damaged pickle can fail in any way at all.
            if "GLOBAL" in str(error) or "Unsupported" in str(error):
                raise CheckpointError(
                    f"{path} asks to run code, and no code is run from files; have its maker save the tensors alone"
                ) from error
            raise CheckpointError(f"{path} is damaged or no checkpoint; download or save it again") from error
        tensors = _by_name(path, content, Tensor)
        for name, tensor in tensors.items():
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise CheckpointError(f"{path} holds {name} in a form that cannot be read; save it as a plain tensor")
            check_dtype(path, name, tensor.dtype)
            # An expanded tensor claims more numbers than the file has, which could be any number of them.
            if tensor.nbytes > tensor.untyped_storage().nbytes():
                raise CheckpointError(
                    f"{path} has too few numbers for the shape of {name}; it is damaged, save it again"
                )
        self.tensors: Mapping[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def _by_name(path: Path, content: Any, kind: type[_Kind]) -> dict[str, _Kind]:
    """The tensors in what was unpickled.  Raises CheckpointError where there is anything else."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no tensors by name; save the model's state_dict alone")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise CheckpointError(f"{path} holds {name!r}, which is no tensor; save the model's state_dict alone")
    return dict(content)
