"""PyTorch's `.pth`, written as a stream: torch.save needs all tensors at once, this needs one.

write_pth(path, items)

The result loads with torch.load, weights only and memory-mapped, and in the official runtime.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import Item, as_bytes
from .pth import LOCAL_HEADER, STORAGES

# PyTorch maps the numbers into memory where they lie, so they must begin at multiples of this many bytes.
_ALIGNMENT = 64
# Of the two extra fields behind an entry's header: ours, which is padding, and the one for sizes beyond 32 bits.
_PADDING_HEADER, _ZIP64_FIELD = 4, 20


class _Storage:
    """Stands for one tensor's numbers in the pickle; the reader looks them up in the archive by `key`."""

    def __init__(self, key: str, like: Tensor) -> None:
        self.key, self.like = key, like


class _Placed:
    """Stands for a tensor in the pickle: a call of the function that torch.save names as well."""

    def __init__(self, storage: _Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        like = self.storage.like
        arguments: tuple[Any, ...] = (self.storage, 0, tuple(like.shape), _strides(like.shape), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        return ("storage", STORAGES[obj.like.dtype], obj.key, "cpu", obj.like.numel())


def _strides(shape: torch.Size) -> tuple[int, ...]:
    return tuple(torch.empty(shape, device="meta").stride())


def write_pth(path: Path, items: Sequence[Item]) -> None:
    """Write `items` as torch.save would, one tensor in memory at a time."""
    content = io.BytesIO()
    placed = {item.name: _Placed(_Storage(str(number), item.like)) for number, item in enumerate(items)}
    _Pickler(content, protocol=2).dump(placed)
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "archive/data.pkl", memoryview(content.getvalue()))
        _write_entry(archive, "archive/byteorder", memoryview(sys.byteorder.encode()))
        for number, item in enumerate(items):
            _write_entry(archive, f"archive/data/{number}", as_bytes(item.tensor()))
        _write_entry(archive, "archive/version", memoryview(b"3\n"))


def _write_entry(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    """Add an uncompressed entry whose content begins at a multiple of _ALIGNMENT."""
    assert archive.fp is not None
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.file_size = content.nbytes
    # zipfile itself adds a field for sizes beyond 32 bits, behind ours; always asking for it makes its size known.
    fixed = archive.fp.tell() + LOCAL_HEADER + len(name.encode()) + _PADDING_HEADER + _ZIP64_FIELD
    padding = -fixed % _ALIGNMENT
    # "FB" is the number under which PyTorch itself files its padding.
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(entry, "w", force_zip64=True) as out:
        out.write(content)
