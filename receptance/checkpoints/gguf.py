"""llama.cpp's `.gguf`, opened by its header and mapped into memory: RWKV-6 and RWKV-7 in float32, bfloat16 or float16.

GgufFile(path).read("blk.0.time_mix_key.weight")
GgufFile(path).settings                         # what only the metadata tells: {"norm_eps": 1e-5}

The format: magic, version, the numbers of tensors and of metadata; the metadata as `key type value`; the tensors as
`name shape type place`, the fastest dimension first; the numbers, each tensor's at a multiple of the alignment.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import MAX_DIMENSIONS, is_possible, mapped

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The numbers under which the format knows the types of a tensor; all but these are quantised or whole numbers.
TYPE_NUMBERS = {torch.float32: 0, torch.float16: 1, torch.float64: 28, torch.bfloat16: 30}
_DTYPES = {number: dtype for dtype, number in TYPE_NUMBERS.items()}
# The architectures that can be read; the metadata of a model stands behind this name.
ARCHITECTURES = ("rwkv6", "rwkv7")
ALIGNMENT = 32

# Types of metadata: how `struct` calls the plain ones, and the two others.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Longer than any string of metadata; a chat template may have a few thousand bytes.
_MAX_STRING = 2**24

# llama.cpp wants these, uses none, and has room for the rank of another product only.
_UNUSED = re.compile(r"blk\.0\.time_mix_v[012]\.weight")
# What RWKV-6 may hold divided by a power of two, so that float16 does not overflow.
_RESCALED = re.compile(r"blk\.(\d+)\.(time_mix_output|channel_mix_value)\.weight")


class GgufFile:
    """A `.gguf` file; `tensors` are on the meta device, and `read` maps one of them into memory.

    Raises CheckpointError for other models, quantised ones, and damaged files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            header = _Header(file, path)
            number_of_tensors, number_of_values = header.begin()
            self.metadata = header.metadata(number_of_values)
            self._architecture = self._check_architecture()
            self.tensors: dict[str, Tensor] = {}
            self._starts: dict[str, int] = {}
            for _ in range(number_of_tensors):
                header.tensor(self.tensors, self._starts)
            alignment = self._positive("general.alignment", ALIGNMENT)
            start = -(-file.tell() // alignment) * alignment
        self._place(start)

    @property
    def settings(self) -> dict[str, Any]:
        """What no tensor tells, under the names that Hugging Face's config.json has for it."""
        epsilon = self._value("attention.layer_norm_epsilon")
        # Stored in single precision; the decimal number that was meant is the shortest one near it.
        return {} if epsilon is None else {"norm_eps": float(f"{epsilon:.6g}")}

    def read(self, name: str) -> Tensor:
        like = self.tensors[name]
        numbers = mapped(self.path, self._starts[name], like.nbytes, like.dtype).reshape(like.shape)
        every = self._value("rescale_every_n_layers") or 0
        if every and (found := _RESCALED.fullmatch(name)):
            return numbers * 2.0 ** (int(found[1]) // every)
        return numbers

    def _value(self, key: str) -> Any:
        return self.metadata.get(f"{self._architecture}.{key}")

    def _check_architecture(self) -> str:
        architecture = self.metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise CheckpointError(
                f"{self.path} is a GGUF file of the kind {architecture!r}, which cannot be read; "
                f"{' and '.join(ARCHITECTURES)} can"
            )
        if self.metadata.get("split.count", 0):
            raise CheckpointError(f"{self.path} is one part of several; join them with llama-gguf-split --merge")
        return str(architecture)

    def _positive(self, key: str, default: int) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or not 0 < value < 2**31:
            raise CheckpointError(f"{self.path} is damaged: its {key} is {value!r}; download or save it again")
        return value

    def _place(self, start: int) -> None:
        """Make the tensors' places count from the file's first byte, and give them the shapes that the heads have."""
        size = self.path.stat().st_size
        if self._architecture == "rwkv7":
            for name in [name for name in self.tensors if _UNUSED.fullmatch(name)]:
                del self.tensors[name]
        for name, tensor in self.tensors.items():
            self._starts[name] += start
            if self._starts[name] + tensor.nbytes > size:
                raise CheckpointError(f"{self.path} is cut short or damaged at {name}; download or save it again")
        head_size = self._positive(f"{self._architecture}.wkv.head_size", 64)
        for name, tensor in self.tensors.items():
            # Of this one llama.cpp keeps one dimension only.
            if name.endswith("time_mix_r_k.weight") and tensor.numel() % head_size == 0:
                self.tensors[name] = tensor.reshape(-1, head_size)


class _Header:
    """Reads what stands before the numbers, from the start on."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def begin(self) -> tuple[int, int]:
        """How many tensors and how many values of metadata there are."""
        self._take(len(MAGIC))
        if (version := self._number("I")) not in VERSIONS:
            raise CheckpointError(f"{self._path} has version {version} of GGUF, which cannot be read; convert it again")
        return self._number("Q"), self._number("Q")

    def metadata(self, count: int) -> dict[str, Any]:
        """All plain values and strings; an array, such as a vocabulary, is passed over and stands there as None."""
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            values[key] = self._metadata_value(self._number("I"))
        return values

    def tensor(self, tensors: dict[str, Tensor], starts: dict[str, int]) -> None:
        """Add one tensor, and where it begins behind the header."""
        name = self._string()
        dimensions = self._number("I")
        if dimensions > MAX_DIMENSIONS or name in tensors:
            self._damaged()
        shape = [self._number("Q") for _ in range(dimensions)][::-1]
        number, start = self._number("I"), self._number("Q")
        if number not in _DTYPES:
            raise CheckpointError(
                f"{self._path} holds {name} quantised, which cannot be read; "
                f"use the checkpoint that it was made from, or a file in F32, BF16 or F16"
            )
        if not is_possible(shape):
            self._damaged()
        tensors[name], starts[name] = torch.empty(shape, dtype=_DTYPES[number], device="meta"), start

    def _metadata_value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_PLAIN.get(kind, ""))
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            for _ in range(count):
                self._take(self._number("Q"))
        elif kind in _PLAIN and count < 2**40:
            self._file.seek(count * struct.calcsize(_PLAIN[kind]), 1)
        else:
            self._damaged()
        return None

    def _string(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", "replace")

    def _number(self, code: str) -> Any:
        if not code:
            self._damaged()
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _take(self, count: int) -> bytes:
        if count > _MAX_STRING or len(found := self._file.read(count)) < count:
            self._damaged()
        return found

    def _damaged(self) -> NoReturn:
        raise CheckpointError(
            f"{self._path} is a GGUF file that is cut short or damaged in its header; download or save it again"
        )
