"""`.safetensors`: opened by its header, mapped into memory, written as a stream.

SafetensorsFile(path).read("emb.weight")
write_safetensors(path, items)

The format: the header's length in 8 bytes, a JSON object {name: {dtype, shape, data_offsets}}, the numbers.  Read here
and not by the format's own library, because that maps the whole file at once, which a machine with less memory refuses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_NUMBERS, Item, as_bytes, is_possible, mapped

DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
# The format's own limit.
MAX_HEADER = 100 * 10**6
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


def begins_safetensors(start: bytes) -> bool:
    """Whether a file that begins with these bytes (9 or more) is a `.safetensors` one, be it cut short."""
    return int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{"


class _Span(NamedTuple):
    """Where a tensor's numbers lie in the file, in bytes."""

    start: int
    size: int


class SafetensorsFile:
    """A `.safetensors` file; `tensors` are on the meta device, and `read` maps one of them into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header, start = _header(path)
        self.tensors: dict[str, Tensor] = {}
        self._spans: dict[str, _Span] = {}
        room = path.stat().st_size - start
        for name, entry in header.items():
            if name != "__metadata__":
                tensor, first, last = _entry(path, name, entry)
                if not 0 <= first <= last <= room or last - first != tensor.nbytes:
                    raise CheckpointError(f"{path} is cut short or damaged at {name}; download or save it again")
                self.tensors[name], self._spans[name] = tensor, _Span(start + first, last - first)
        if not self.tensors:
            raise CheckpointError(f"{path} holds no tensors; save it again")

    def read(self, name: str) -> Tensor:
        like, span = self.tensors[name], self._spans[name]
        return mapped(self.path, span.start, span.size, like.dtype).reshape(like.shape)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the numbers begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= MAX_HEADER else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is cut short or damaged in its header; download or save it again") from error
    if len(text) != length or not isinstance(header, dict):
        raise CheckpointError(f"{path} is cut short or damaged in its header; download or save it again")
    return header, 8 + length


def _entry(path: Path, name: str, entry: Any) -> tuple[Tensor, int, int]:
    """A tensor's shape and dtype on the meta device, and its first and last byte among the numbers."""
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its header does not describe {name}; save it again") from error
    if dtype not in _DTYPES:
        raise CheckpointError(
            f"{path} holds {name} as {dtype}, which cannot be read; use a checkpoint in float32, bfloat16 or float16"
        )
    places_are_possible = all(type(place) is int and 0 <= place < 8 * MAX_NUMBERS for place in (first, last))
    if not is_possible(shape) or not places_are_possible:
        raise CheckpointError(f"{path} is damaged: {name} has an impossible shape or place; save it again")
    return torch.empty(shape, dtype=_DTYPES[dtype], device="meta"), first, last


def write_safetensors(path: Path, items: Sequence[Item]) -> None:
    """Write `items`, one tensor in memory at a time."""
    # Wide numbers first, as the format's own library does, so that all of them lie aligned.
    items = sorted(items, key=lambda item: -item.like.element_size())
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for item in items:
        start, end = end, end + item.like.nbytes
        shape = list(item.like.shape)
        header[item.name] = {"dtype": DTYPE_NAMES[item.like.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for item in items:
            file.write(as_bytes(item.tensor()))
