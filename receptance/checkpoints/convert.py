"""Any checkpoint into any format that can be written, tensor by tensor.

left_out = convert("model.pth", "folder", dtype=torch.bfloat16)
save_checkpoint(model, "model.safetensors")

The destination's name says the format: `.pth` and `.safetensors` with the official names, `.gguf` for llama.cpp,
anything else a Hugging Face folder.  No more than one tensor is in memory at a time, and the destination appears only
when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..devices import as_dtype
from ..errors import CheckpointError
from ..replacing import replacing
from .checkpoint import Checkpoint, open_checkpoint, read_finite
from .files import Item, check_dtype
from .gguf_writer import GGUF_DIALECTS, About, check_writable, write_gguf
from .hf import FOLDER_DIALECTS, hf_config, write_folder
from .in_memory import of_model
from .layouts import LAYOUTS
from .names import DIALECTS
from .pth_writer import write_pth
from .safetensors import write_safetensors

# What a file is written with, by its ending; both have the official names.
WRITERS: dict[str, Callable[[Path, Sequence[Item]], None]] = {".pth": write_pth, ".safetensors": write_safetensors}
GGUF = ".gguf"
# Endings that mean a file, in a format that we do not write.
UNWRITABLE = (".st", ".pt", ".bin", ".ckpt", ".onnx", ".zip", ".rwkvq", ".json")

SHARD_BYTES = 5 * 10**9

Progress = Callable[[int, int], None]


def convert(
    source: Checkpoint | str | Path,
    destination: str | Path,
    dtype: torch.dtype | str | None = None,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """Write a checkpoint in another format, in `dtype` (`torch.bfloat16` or "bfloat16"; None: as stored, bit for bit).

    progress(done, total) is called after each tensor, in bytes.  Returns the official names of the tensors that the
    destination has no place for.  Raises CheckpointError for a bad source, for numbers that are NaN, infinite or too
    large for `dtype`, and for a generation that the destination's format does not know; InputError for another dtype.
    """
    dtype = None if dtype is None else as_dtype(dtype)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return _write(checkpoint, Path(destination), dtype, progress, shard_bytes, checked=True)


def save_checkpoint(model: nn.Module, path: str | Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a model; the format is told by the name, as for `convert`.

    torch.compile or DistributedDataParallel may be around the model.  Raises CheckpointError, before anything is
    written, for other models than an RWKV, and for one with tensors of its own.

    Weights that are NaN are written as they are: this is called at the end of a training run, which must not be lost.
    """
    _write(of_model(model), Path(path), None, None, shard_bytes, checked=False)


def write_state_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tuned initial states, `blocks.N.att.time_state [H, N, N]`, as the official trainers do.

    Raises CheckpointError where the name does not end in .pth, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".pth":
        raise CheckpointError(f"{path} is no name for a tuned state; choose one that ends in .pth")
    items = [Item(name, tensor, partial(Tensor.cpu, tensor)) for name, tensor in tensors.items()]
    try:
        with replacing(path) as beside:
            write_pth(beside, items)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def check_destination(path: str | Path, version: str) -> None:
    """Raise CheckpointError where a model of this generation cannot be written to `path`; writes nothing itself.

    For work that takes long and saves at its end: a name that cannot be written should not cost the work.
    """
    path = Path(path)
    _dialect_for(path, version)
    target = Path(os.path.realpath(path))
    place = target if target.is_dir() else target.parent
    above = next(folder for folder in (place, *place.parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CheckpointError(f"cannot write {path}: {above} is no folder that can be written to; choose another place")


def _write(
    checkpoint: Checkpoint,
    path: Path,
    dtype: torch.dtype | None,
    progress: Progress | None,
    shard_bytes: int,
    checked: bool,
) -> list[str]:
    dialect = _dialect_for(path, checkpoint.config.version)
    if dialect in GGUF_DIALECTS.values():
        check_writable(checkpoint.config)
    items, left_out = _items(checkpoint, dialect, dtype, checked)
    if progress:
        items = _reporting(items, progress)
    with replacing(path) as beside:
        if write := WRITERS.get(path.suffix.lower()):
            write(beside, items)
        elif path.suffix.lower() == GGUF:
            write_gguf(beside, items, checkpoint.config, About(checkpoint.path, dtype or checkpoint.dtype))
        else:
            values = hf_config(checkpoint.config, dialect, dtype or checkpoint.dtype)
            write_folder(beside, items, values, shard_bytes)
    return left_out


def _dialect_for(path: Path, version: str) -> str:
    if not path.name:
        raise CheckpointError(f"cannot write {str(path)!r}, which is no name of a file or folder; give one")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"cannot write {path}: it is no ordinary file; choose another name")
    ending = path.suffix.lower()
    if (ending in WRITERS or ending == GGUF) and path.is_dir():
        raise CheckpointError(f"{path} is a folder, but its name ends like a file's; choose another name")
    if ending in WRITERS:
        return "official"
    if ending == GGUF and version in GGUF_DIALECTS:
        return GGUF_DIALECTS[version]
    if ending == GGUF:
        raise CheckpointError(f"llama.cpp has no RWKV-{version}; choose a .pth or .safetensors file")
    if ending in UNWRITABLE or path.is_file():
        raise CheckpointError(
            f"cannot write {path}: choose a name ending in .pth, .safetensors or .gguf, or a folder's name"
        )
    if version not in FOLDER_DIALECTS:
        raise CheckpointError(f"no Hugging Face folder holds RWKV-{version}; choose a .pth or .safetensors file")
    return FOLDER_DIALECTS[version]


def _items(
    checkpoint: Checkpoint, dialect: str, dtype: torch.dtype | None, checked: bool
) -> tuple[list[Item], list[str]]:
    """What has to be written, each tensor made when it is asked for; and the names without a place."""
    items: dict[str, Item] = {}
    left_out = []
    for name, tensor in checkpoint.tensors.items():
        match = DIALECTS[dialect].to_stored(name)
        if match is None:
            left_out.append(name)
        elif match.stored not in items:
            check_dtype(checkpoint.path, name, dtype or tensor.dtype)
            wanted = torch.float32 if DIALECTS[dialect].is_in_float32(match.stored) else dtype or tensor.dtype
            meta = [checkpoint.tensors[part].to(wanted) for part in match.official]
            like = LAYOUTS[match.layout].to_stored(meta)
            make = _maker(checkpoint, match.official, match.layout, wanted, checked)
            items[match.stored] = Item(match.stored, like, make)
    return list(items.values()), left_out


def _maker(
    checkpoint: Checkpoint, names: Sequence[str], layout: str, dtype: torch.dtype, checked: bool
) -> Callable[[], Tensor]:
    def make() -> Tensor:
        if checked:
            return LAYOUTS[layout].to_stored([read_finite(checkpoint, name, dtype) for name in names])
        return LAYOUTS[layout].to_stored([checkpoint.tensor(name).to(dtype) for name in names])

    return make


def _reporting(items: Sequence[Item], progress: Progress) -> list[Item]:
    total, done = sum(item.like.nbytes for item in items), 0

    def reported(item: Item) -> Callable[[], Tensor]:
        def make() -> Tensor:
            nonlocal done
            tensor = item.tensor()
            done += item.like.nbytes
            progress(done, total)
            return tensor

        return make

    return [item._replace(tensor=reported(item)) for item in items]
