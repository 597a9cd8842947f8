"""A checkpoint, opened: its shape and its tensors under the official names, read one at a time when asked for.

checkpoint = open_checkpoint("model.pth")       # a file, a folder, a hub id, `user/repo:file`
checkpoint.config, checkpoint.dialect
checkpoint.tensor("blocks.0.att.w1")            # in official shape and orientation, whatever the file's is
model = load_model(checkpoint)

Opening reads headers only, and compares names and shapes with the model that the file says it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from ..devices import dtype_name
from ..errors import CheckpointError, ConfigError
from ..models import RWKV
from .detect import detect
from .files import TensorFile, open_file
from .hf import open_folder, settings
from .hub import find
from .layouts import LAYOUTS
from .names import STATE, UNUSED_7, Dialect, find_dialect

# What may be overridden when a model is loaded: no tensor tells these.
OVERRIDES = ("norm_eps", "group_norm_eps")


class Place(NamedTuple):
    """Where an official tensor lies: in `file` under the name `stored`, the `part`th of those in there."""

    file: TensorFile
    stored: str
    layout: str
    part: int

    def read(self) -> Tensor:
        return LAYOUTS[self.layout].to_official(self.file.read(self.stored))[self.part]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of one model on disk.

    dialect     whose names and layout the file has
    tensors     official name -> a tensor on the meta device: shape and dtype, no numbers
    """

    path: Path
    dialect: str
    config: Config
    tensors: Mapping[str, Tensor]
    places: Mapping[str, Place]

    def tensor(self, name: str) -> Tensor:
        """One tensor by its official name, as stored but for the layout; mapped into memory where that is possible."""
        return self.places[name].read().reshape(self.tensors[name].shape).contiguous()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which most numbers are stored."""
        count: Counter[torch.dtype] = Counter()
        for tensor in self.tensors.values():
            count[tensor.dtype] += tensor.numel()
        return count.most_common(1)[0][0]

    @property
    def unused(self) -> list[str]:
        """Tensors that the file holds but the model does not, as layer 0's value residual in official files."""
        return [name for name in self.tensors if _is_unused(name, self.config)]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint: a file, a folder, a hub id or `user/repo:file`, which are downloaded.

    Raises CheckpointError, in one sentence, for anything that is not one whole model.
    """
    path = find(path)
    files, values = open_folder(path) if path.is_dir() else ([open_file(path)], {})
    stored = {name: tensor for file in files for name, tensor in file.tensors.items()}
    dialect = find_dialect(stored)
    tensors, places = _translate(path, dialect, files)
    try:
        config = detect(tensors)
        config = config.replace(**settings(values, config))
        if dialect.name == "official" and _has_ending(files, ".st"):
            _refuse_ambiguous(config)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path} cannot be opened: {error}") from error
    return Checkpoint(path, dialect.name, config, _fitted(path, tensors, config), places)


def _has_ending(files: list[TensorFile], *endings: str) -> bool:
    return any(file.path.suffix == ending for file in files for ending in endings)


def _refuse_ambiguous(config: Config) -> None:
    """Raise CheckpointError for models in web-rwkv's format that could be read in two ways, by every name and shape."""
    advice = "use the .pth that it was made from"
    if config.log_bonus:
        # Its converter gives time_faaaa the name that older official files have for the logarithm of the same.
        raise CheckpointError(f"nothing in a .st of RWKV-{config.version} tells what its time_first is; {advice}")
    ranks = {config.decay_rank, config.rate_rank, config.gate_rank, config.value_rank or config.dim}
    if config.version == "7" and ranks == {config.dim}:
        raise CheckpointError(f"all ranks are the width, so that transposed factors cannot be told; {advice}")


def of_model(model: RWKV) -> Checkpoint:
    """A model in memory, seen as a checkpoint."""
    file = _Memory({name: tensor.detach() for name, tensor in model.state_dict().items()})
    places = {name: Place(file, name, "same", 0) for name in file.tensors}
    return Checkpoint(file.path, "official", model.config, _without_numbers(file.tensors), places)


class _Memory:
    """Tensors in memory, on any device."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.tensors = Path("model"), tensors

    def read(self, name: str) -> Tensor:
        return self.tensors[name].cpu()


def load_model(
    source: Checkpoint | str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    **overrides: Any,
) -> RWKV:
    """The model in a checkpoint, on `device` (None: the CPU).

    dtype None keeps the numbers as stored.  Where a file mixes dtypes, the model gets the one that most numbers have;
    ask for float32 to lose none.  On the CPU and in the stored dtype the weights are mapped into memory: the system may
    drop and read them again, and changing them does not change the file.

    overrides: norm_eps, group_norm_eps, which no tensor tells.

    Raises CheckpointError, also for NaN, infinite or too large weights, and ConfigError for another override.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    if wrong := [name for name in overrides if name not in OVERRIDES]:
        raise ConfigError(f"{wrong[0]} cannot be overridden, it is read off the tensors; {', '.join(OVERRIDES)} can be")
    with torch.device("meta"):
        model = RWKV(checkpoint.config.replace(**overrides))
    dtype = dtype or checkpoint.dtype
    weights = {name: read_finite(checkpoint, name, dtype).to(device or "cpu") for name in model.state_dict()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model


def read_finite(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Tensor:
    """Read a tensor, in `dtype`.  Raises CheckpointError where one of its numbers is none, or does not fit."""
    stored = checkpoint.tensor(name)
    tensor = stored.to(dtype)
    if not _is_finite(tensor):
        if _is_finite(stored):
            small = dtype_name(dtype)
            raise CheckpointError(f"{name} in {checkpoint.path} has numbers too large for {small}; choose bfloat16")
        raise CheckpointError(f"{name} in {checkpoint.path} holds NaN or infinity; its training went wrong")
    return tensor


def _is_finite(tensor: Tensor) -> bool:
    # The extremes need no memory of the tensor's size, as isfinite does; a NaN makes both of them NaN.
    return not tensor.numel() or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def read_state_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tuned initial states in a file: {"blocks.3.att.time_state": [H, N, N]}, as stored.

    Official files hold S[V, K] for every generation.  Raises CheckpointError where there are none, for NaN and
    infinity, and for state files of web-rwkv (`.st`, `.state`), which hold S[K, V] and do not tell.
    """
    path = find(path)
    files = open_folder(path)[0] if path.is_dir() else [open_file(path)]
    dialect = find_dialect({name: tensor for file in files for name, tensor in file.tensors.items()})
    places = _translate(path, dialect, files)[1]
    states = {name: place.read().contiguous() for name, place in places.items() if re.fullmatch(STATE, name)}
    if not states:
        raise CheckpointError(f"{path} holds no state; a state file has tensors like blocks.0.att.time_state")
    if dialect.name == "official" and _has_ending(files, ".st", ".state"):
        raise CheckpointError(f"{path} does not tell whether its states are transposed; use the .pth it was made from")
    if bad := next((name for name, tensor in states.items() if not _is_finite(tensor)), None):
        raise CheckpointError(f"{bad} in {path} holds NaN or infinity; its tuning went wrong")
    return states


def _translate(path: Path, dialect: Dialect, files: list[TensorFile]) -> tuple[dict[str, Tensor], dict[str, Place]]:
    """All tensors of the files under their official names."""
    tensors: dict[str, Tensor] = {}
    places: dict[str, Place] = {}
    for file in files:
        for stored, tensor in _without_numbers(file.tensors).items():
            match = dialect.to_official(stored)
            if match is None:
                raise CheckpointError(f"{path} has the tensor {stored}, which no {dialect.name} file has")
            try:
                parts = LAYOUTS[match.layout].to_official(tensor)
                named = list(zip(match.official, parts, strict=True))
            except (RuntimeError, ValueError) as error:
                raise CheckpointError(f"{path} has the tensor {stored} in a shape that no model has") from error
            for part, (name, official) in enumerate(named):
                if name in places:
                    raise CheckpointError(f"{path} holds {name} twice, as {places[name].stored} and as {stored}")
                tensors[name], places[name] = official, Place(file, stored, match.layout, part)
    return tensors, places


def _fitted(path: Path, tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The tensors in the model's order and with its number of dimensions.

    Raises CheckpointError for missing, unknown and misshapen ones.
    """
    with torch.device("meta"):
        wanted = RWKV(config).state_dict()
    kind = f"RWKV-{config.version}"
    if missing := [name for name in wanted if name not in tensors]:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{path} lacks {missing[0]}{others}, so it is not a whole {kind} language model")
    fitted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _is_unused(name, config):
            fitted[name] = tensor
        elif name not in wanted:
            raise CheckpointError(f"{path} has the tensor {name}, which no {kind} has; it is another kind of model")
        elif _without_ones(tensor.shape) != _without_ones(wanted[name].shape):
            has, should = ("x".join(map(str, shape)) for shape in (tensor.shape, wanted[name].shape))
            raise CheckpointError(f"{name} in {path} is {has}, but the other tensors of this {kind} need {should}")
        else:
            fitted[name] = tensor.reshape(wanted[name].shape)
    return fitted


def _without_ones(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]


def _is_unused(name: str, config: Config) -> bool:
    return bool(re.fullmatch(f"{UNUSED_7}|{STATE}" if config.version == "7" else STATE, name))


def _without_numbers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
