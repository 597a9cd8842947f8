"""Quantised models as files: `.safetensors` with packed weights, mapped into memory and never converted.

    save_quantised(model, "model.int4.safetensors")
    found = open_quantised("model.int4.safetensors")    # its header: config, formats
    model = found.load()

The names are those of the model's `state_dict()`: `blocks.0.att.key.packed` and `.scales`, all others as in an official
file.  The metadata tell the Config and what each matrix is stored as.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.checkpoint import check_overrides
from ..checkpoints.safetensors import QUANTISED, SafetensorsFile, SafetensorsStream, metadata_of
from ..config import Config
from ..errors import CheckpointError, InputError, ReceptanceError
from ..models import RWKV
from ..ops.cpu.storage import BY_INPUT
from ..replacing import replacing
from .formats import format_of
from .packing import empty
from .quantize import Matrix, is_quantised, matrices, quantised_layers

__all__ = ["QuantisedFile", "Stored", "is_quantised_file", "open_quantised", "save_quantised", "stored_in"]

# Bytes of a header for each tensor, its name included, and for each matrix in the metadata.
ROOM_FOR_TENSOR, ROOM_FOR_MATRIX, ROOM_FOR_REST = 192, 128, 4096


@dataclass(frozen=True)
class Stored:
    """What a matrix is stored as; `error` as in `linear.Quantised`."""

    format: str
    by_input: bool
    error: float | None


@dataclass(frozen=True, eq=False)
class QuantisedFile:
    """A quantised model on disk.

    matrices   official name of each quantised matrix -> what it is stored as
    tensors    name as stored -> a tensor on the meta device
    source     what is known of the file that it was made from
    """

    path: Path
    config: Config
    matrices: Mapping[str, Stored]
    source: Mapping[str, Any]
    file: SafetensorsFile

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.file.tensors

    @property
    def dtype(self) -> torch.dtype:
        """Of all that is not quantised."""
        return self.tensors["emb.weight"].dtype

    @property
    def bits_per_weight(self) -> float:
        """Of the quantised matrices, with their scales and what fills them up; 0 where there are none."""
        with torch.device("meta"):
            weights = {matrix.name: matrix.weight.numel() for matrix in matrices(RWKV(self.config))}
        ours = [t.nbytes for name, t in self.tensors.items() if name.endswith((".packed", ".scales"))]
        return 8 * sum(ours) / max(1, sum(weights[name] for name in self.matrices))

    def load(self, **overrides: Any) -> RWKV:
        """The model, on the CPU, its weights left in the file: the system reads them when they are used.

        overrides   norm_eps, group_norm_eps; ConfigError is raised for others
        """
        check_overrides(overrides)
        with torch.device("meta"):
            model = self._empty(overrides)
        weights = {name: self.file.read(name) for name in model.state_dict()}
        model.load_state_dict(weights, strict=True, assign=True)
        return model

    def _empty(self, overrides: Mapping[str, Any]) -> RWKV:
        """The model without numbers.  Raises CheckpointError where the file's tensors are not those of one."""
        model = RWKV(self.config.replace(**overrides))
        found = {matrix.name: matrix for matrix in matrices(model)}
        for name, stored in self.matrices.items():
            if name not in found:
                raise CheckpointError(f"{self.path} is damaged: its model has no matrix {name}; quantise it again")
            _make_room(found[name], stored)
        for name, wanted in model.state_dict().items():
            has = self.tensors.get(name)
            whole = not wanted.is_floating_point()
            if has is None or has.shape != wanted.shape or has.is_floating_point() == whole:
                raise CheckpointError(f"{self.path} is damaged: {name} is missing or misshapen; quantise it again")
        return model


def _make_room(matrix: Matrix, stored: Stored) -> None:
    num_out, num_in = matrix.weight.shape
    matrix.replace(empty(num_out, num_in, format_of(stored.format), stored.by_input, "meta"), stored.error)


def is_quantised_file(path: Path) -> bool:
    """Whether `save_quantised` or `quantize_checkpoint` wrote this file, or one of a later kind."""
    return metadata_of(path).get("format", "").startswith(QUANTISED.rpartition("-")[0])


def open_quantised(path: str | Path) -> QuantisedFile:
    """Open a quantised model by its header.  Raises CheckpointError for anything else, and for a damaged one."""
    path = Path(path)
    found = metadata_of(path).get("format")
    if found != QUANTISED:
        newer = is_quantised_file(path)
        reason = f"of a kind that this version does not know ({found})" if newer else "no quantised model of ours"
        raise CheckpointError(f"{path} is {reason}; quantise the original with `receptance quantize`")
    file = SafetensorsFile(path, quantised=True)
    try:
        config = Config(**json.loads(file.metadata["config"]))
        stored = {name: Stored(**values) for name, values in json.loads(file.metadata["matrices"]).items()}
        source = dict(json.loads(file.metadata.get("source", "{}")))
        for entry in stored.values():
            format_of(entry.format)
    except (ReceptanceError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata make no sense; quantise the original again") from error
    opened = QuantisedFile(path, config, stored, source, file)
    with torch.device("meta"):
        opened._empty({})
    return opened


def save_quantised(model: RWKV, path: str | Path) -> None:
    """Write a quantised model.  Raises InputError for one that is not quantised, OSError where it cannot be written."""
    if not is_quantised(model):
        raise InputError("this model is not quantised; save_checkpoint writes it")
    path = Path(path)
    with replacing(path) as partial, SafetensorsStream(partial, room_for(model.config)) as stream:
        for name, tensor in model.state_dict().items():
            stream.add(name, tensor.cpu())
        stream.metadata = metadata(model.config, stored_in(model), {})


def room_for(config: Config) -> int:
    """Bytes that the header of such a model takes at most."""
    with torch.device("meta"):
        model = RWKV(config)
    num_tensors, num_matrices = len(model.state_dict()), len(list(matrices(model)))
    return ROOM_FOR_REST + ROOM_FOR_TENSOR * (num_tensors + num_matrices) + ROOM_FOR_MATRIX * num_matrices


def stored_in(module: nn.Module, prefix: str = "") -> dict[str, Stored]:
    """What the matrices of a quantised model are stored as, or of a part of it."""
    return {
        name: Stored(layer.matrix.format.name, layer.kind >= BY_INPUT, layer.error)
        for name, layer in quantised_layers(module, prefix)
    }


def metadata(config: Config, stored: Mapping[str, Stored], source: Mapping[str, Any]) -> dict[str, str]:
    """The texts that a quantised file has beside its tensors."""
    entries = {name: {**vars(entry), "error": _short(entry.error)} for name, entry in stored.items()}
    texts = {"config": config.to_dict(), "matrices": entries, "source": dict(source)}
    return {"format": QUANTISED, **{name: json.dumps(value, separators=(",", ":")) for name, value in texts.items()}}


def _short(error: float | None) -> float | None:
    return None if error is None else float(f"{error:.3g}")
