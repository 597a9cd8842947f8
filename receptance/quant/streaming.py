"""A checkpoint of any size, quantised from file to file in the memory of one block.

    quantize_checkpoint("model.pth", "model.int4.safetensors", "int4")

What is written loads with `receptance.load`, mapped into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints import Checkpoint, open_checkpoint
from ..checkpoints.checkpoint import read_finite
from ..checkpoints.safetensors import SafetensorsStream
from ..errors import CheckpointError
from ..models import RWKV
from ..replacing import replacing
from .files import Stored, metadata, room_for, stored_in
from .quantize import Progress, Walk, check_patterns, probe_tokens

__all__ = ["quantize_checkpoint", "state_of"]

ENDING = ".safetensors"


def quantize_checkpoint(
    source: Checkpoint | str | Path,
    destination: str | Path,
    to: str,
    keep: Sequence[str] = (),
    tokens: Tensor | None = None,
    progress: Progress | None = None,
) -> dict[str, Stored]:
    """Write a checkpoint's model in "int8" or "int4", block by block; `keep`, `tokens` as for `quantize`.

    progress   is called as progress(done, total) after each block and after the head

    Returns what each matrix became, by its official name; those that are not in it stayed as they were.  Raises
    CheckpointError for a bad source and for a destination that is none, InputError for another format or pattern.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    destination = Path(destination)
    if destination.suffix.lower() != ENDING or destination.is_dir():
        raise CheckpointError(f"cannot write {destination}: choose a file's name that ends in {ENDING}")
    check_patterns(keep, checkpoint.tensors)
    with torch.device("meta"):
        model = RWKV(checkpoint.config).eval()
    tokens = probe_tokens(model.config) if tokens is None else tokens
    room = room_for(model.config)
    with torch.no_grad(), replacing(destination) as partial, SafetensorsStream(partial, room) as stream:
        stored = _pour(checkpoint, model, stream, to, keep, tokens, progress)
        stream.metadata = metadata(model.config, stored, state_of(checkpoint.path))
    return stored


def _pour(
    checkpoint: Checkpoint,
    model: RWKV,
    stream: SafetensorsStream,
    to: str,
    keep: Sequence[str],
    tokens: Tensor,
    progress: Progress | None,
) -> dict[str, Stored]:
    """Fill the parts of an empty model one after the other, quantise them, write them and forget them."""
    stored: dict[str, Stored] = {}
    embedding = read_finite(checkpoint, "emb.weight", checkpoint.dtype)
    walk = Walk(model.config, to, keep, F.embedding(tokens, embedding))
    stream.add("emb.weight", embedding)
    del embedding
    for layer, block in enumerate(model.blocks):
        prefix = f"blocks.{layer}."
        _fill(block, prefix, checkpoint)
        walk.block(block, prefix)
        stored |= _drain(block, prefix, stream)
        model.blocks[layer] = nn.Identity()
        if progress is not None:
            progress(layer + 1, len(model.blocks) + 1)
    _fill(model.ln_out, "ln_out.", checkpoint)
    _fill(model.head, "head.", checkpoint)
    walk.head(model)
    stored |= _drain(model.ln_out, "ln_out.", stream) | _drain(model.head, "head.", stream)
    if progress is not None:
        progress(len(model.blocks) + 1, len(model.blocks) + 1)
    return stored


def _fill(part: nn.Module, prefix: str, checkpoint: Checkpoint) -> None:
    """Give a part of the model its weights."""
    weights = {name: read_finite(checkpoint, prefix + name, checkpoint.dtype) for name in part.state_dict()}
    part.load_state_dict(weights, strict=True, assign=True)


def _drain(part: nn.Module, prefix: str, stream: SafetensorsStream) -> dict[str, Stored]:
    """Write what a part of the model has become."""
    for name, tensor in part.state_dict().items():
        stream.add(prefix + name, tensor)
    return stored_in(part, prefix)


def state_of(path: Path) -> dict[str, int]:
    """By what a changed checkpoint is told from the one that was read: its size and when it was written."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    states = [file.stat() for file in files]
    return {"size": sum(state.st_size for state in states), "mtime_ns": max(state.st_mtime_ns for state in states)}
