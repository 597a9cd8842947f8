"""`.safetensors`: opened by its header, mapped into memory, written as a stream.

SafetensorsFile(path).read("emb.weight")
write_safetensors(path, items)
with SafetensorsStream(path, room=2**16) as stream: stream.add("emb.weight", tensor)

The format: the header's length in 8 bytes, a JSON object {name: {dtype, shape, data_offsets}}, the numbers.  Read here
and not by the format's own library, because that maps the whole file at once, which a machine with less memory refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_NUMBERS, Item, as_bytes, is_possible, mapped

DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
# What the bytes of packed weights are called; only files that say of themselves that they are ours hold such.
PACKED_NAMES = {torch.uint8: "U8"}
# The format's own limit.
MAX_HEADER = 100 * 10**6
# Where tensors begin, so that a kernel reads them in whole lines of the cache.
ALIGNMENT = 64
# How the metadata of a quantised model of ours calls its format.
QUANTISED = "receptance-quantised-2"
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_PACKED_DTYPES = {name: dtype for dtype, name in PACKED_NAMES.items()}


def begins_safetensors(start: bytes) -> bool:
    """Whether a file that begins with these bytes (9 or more) is a `.safetensors` one, be it cut short."""
    return int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{"


class _Span(NamedTuple):
    """Where a tensor's numbers lie in the file, in bytes."""

    start: int
    size: int


class SafetensorsFile:
    """A `.safetensors` file; `tensors` are on the meta device, and `read` maps one of them into memory.

    metadata   texts that the file has beside its tensors
    """

    def __init__(self, path: Path, quantised: bool = False) -> None:
        """Raises CheckpointError where it is damaged, and for a quantised model unless one is asked for."""
        self.path = path
        header, start = _header(path)
        self.metadata = _metadata(header)
        if self.metadata.get("format") == QUANTISED and not quantised:
            raise CheckpointError(f"{path} is a quantised model, which can only be run; use what it was made from")
        self.tensors: dict[str, Tensor] = {}
        self._spans: dict[str, _Span] = {}
        room = path.stat().st_size - start
        for name, entry in header.items():
            if name != "__metadata__":
                tensor, first, last = _entry(path, name, entry, _DTYPES | _PACKED_DTYPES if quantised else _DTYPES)
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


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a file; none where they are not as the format has them."""
    found = header.get("__metadata__")
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def metadata_of(path: Path) -> dict[str, str]:
    """The texts in the header of a `.safetensors` file; none where it is no such file, or cannot be read."""
    try:
        # Asked first, because opening a pipe waits for somebody to write to it.
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return {}
    if not begins_safetensors(start):
        return {}
    return _metadata(_header(path)[0])


def _entry(path: Path, name: str, entry: Any, dtypes: Mapping[str, torch.dtype]) -> tuple[Tensor, int, int]:
    """A tensor's shape and dtype on the meta device, and its first and last byte among the numbers."""
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: its header does not describe {name}; save it again") from error
    if dtype not in dtypes:
        raise CheckpointError(
            f"{path} holds {name} as {dtype}, which cannot be read; use a checkpoint in float32, bfloat16 or float16"
        )
    places_are_possible = all(type(place) is int and 0 <= place < 8 * MAX_NUMBERS for place in (first, last))
    if not is_possible(shape) or not places_are_possible:
        raise CheckpointError(f"{path} is damaged: {name} has an impossible shape or place; save it again")
    return torch.empty(shape, dtype=dtypes[dtype], device="meta"), first, last


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
    with path.open("wb") as file:
        file.write(_header_bytes(header, 8))
        for item in items:
            file.write(as_bytes(item.tensor()))


def _header_bytes(header: Mapping[str, object], alignment: int, room: int = 0) -> bytes:
    """The header with its length before it, filled up with spaces to `room` bytes and to a multiple of `alignment`."""
    text = json.dumps(header, separators=(",", ":")).encode()
    size = max(8 + len(text), room)
    size += -size % alignment
    return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)


class SafetensorsStream:
    """A file that is written tensor by tensor, though nobody knows beforehand what tensors these will be.

    The header comes last, into `room` bytes that are kept free for it; `metadata` may be set until then.  Tensors
    begin at multiples of ALIGNMENT: those that would push the others off wait in memory for the end.
    """

    def __init__(self, path: Path, room: int) -> None:
        self.metadata: dict[str, str] = {}
        self._room = room + -room % ALIGNMENT
        self._entries: dict[str, object] = {}
        self._waiting: dict[str, Tensor] = {}
        self._end = 0
        self._path = path

    def __enter__(self) -> SafetensorsStream:
        self._file = self._path.open("wb")
        self._file.seek(self._room)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                for name, tensor in sorted(self._waiting.items(), key=lambda item: -item[1].element_size()):
                    self._write(name, tensor)
                header = _header_bytes({"__metadata__": self.metadata, **self._entries}, ALIGNMENT, self._room)
                assert len(header) == self._room, "the header does not fit the room that was kept for it"
                self._file.seek(0)
                self._file.write(header)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor."""
        if tensor.nbytes % ALIGNMENT:
            self._waiting[name] = tensor.clone()
        else:
            self._write(name, tensor)

    def _write(self, name: str, tensor: Tensor) -> None:
        start, self._end = self._end, self._end + tensor.nbytes
        dtype = (DTYPE_NAMES | PACKED_NAMES)[tensor.dtype]
        self._entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, self._end]}
        self._file.write(as_bytes(tensor))
