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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from ..devices import as_dtype, dtype_name
from ..errors import CheckpointError, ConfigError
from ..models import RWKV
from .detect import detect
from .files import TensorFile, open_file
from .gguf import GgufFile
from .hf import open_folder, settings
from .hub import find
from .layouts import LAYOUTS
from .names import STATE, UNUSED_7, Dialect, find_dialect, wrapper

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
    files, values = _open(path)
    dialect, tensors, places = _translate(path, files)
    try:
        config = detect(tensors)
        config = config.replace(**settings(values, config))
        if dialect.name == "official" and _has_ending(files, ".st"):
            _refuse_ambiguous(config)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path} cannot be opened: {error}") from error
    return Checkpoint(path, dialect.name, config, _fitted(path, tensors, config), places)


def _open(path: Path) -> tuple[list[TensorFile], dict[str, Any]]:
    """The files of a checkpoint, and what is written beside the tensors, as in a config.json."""
    if path.is_dir():
        return open_folder(path)
    file = open_file(path)
    return [file], file.settings if isinstance(file, GgufFile) else {}


def _has_ending(files: list[TensorFile], *endings: str) -> bool:
    return any(file.path.suffix.lower() == ending for file in files for ending in endings)


def _refuse_ambiguous(config: Config) -> None:
    """Raise CheckpointError for models in web-rwkv's format that could be read in two ways, by every name and shape."""
    advice = "use the .pth that it was made from"
    if config.log_bonus:
        # Its converter gives time_faaaa the name that older official files have for the logarithm of the same.
        raise CheckpointError(f"nothing in a .st of RWKV-{config.version} tells what its time_first is; {advice}")
    ranks = {config.decay_rank, config.rate_rank, config.gate_rank, config.value_rank or config.dim}
    if config.version == "7" and ranks == {config.dim}:
        raise CheckpointError(f"all ranks are the width, so that transposed factors cannot be told; {advice}")


def load_model(
    source: Checkpoint | str | Path,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    mmap: bool = False,
    **overrides: Any,
) -> RWKV:
    """The model in a checkpoint, on `device` (None: the CPU).

    dtype None keeps the numbers as stored.  Where a file mixes dtypes, the model gets the one that most numbers have;
    ask for float32 to lose none.

    mmap: leave the weights in the file where they are on the CPU and in the stored dtype.  The system reads them when
    they are used, and may drop and read them again; changing them does not change the file.  DANGER: the file must stay
    as it is for as long as the model lives.  Writing into it (`torch.save` to the same name) ends Python without a
    message and destroys the file; `save_checkpoint` and `convert`, which put a new file in its place, do not.

    overrides: norm_eps, group_norm_eps, which no tensor tells.

    Raises CheckpointError, also for NaN, infinite or too large weights; ConfigError for another override,
    InputError for another dtype.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    check_overrides(overrides)
    with torch.device("meta"):
        model = RWKV(checkpoint.config.replace(**overrides))
    dtype = checkpoint.dtype if dtype is None else as_dtype(dtype)
    device = torch.device(device or "cpu")
    # On its way to another device a tensor is copied anyway.
    copy = device.type == "cpu" and not mmap
    weights = {name: read_finite(checkpoint, name, dtype, copy).to(device) for name in model.state_dict()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model


def check_overrides(names: Iterable[str]) -> None:
    """Raise ConfigError for anything but what no tensor tells."""
    if wrong := [name for name in names if name not in OVERRIDES]:
        raise ConfigError(f"{wrong[0]} cannot be overridden, it is read off the tensors; {', '.join(OVERRIDES)} can be")


def read_finite(checkpoint: Checkpoint, name: str, dtype: torch.dtype, copy: bool = False) -> Tensor:
    """Read a tensor, in `dtype`; with `copy` it shares no memory with the file.

    Raises CheckpointError where one of its numbers is none, or does not fit.
    """
    stored = checkpoint.tensor(name)
    tensor = stored.to(dtype, copy=copy)
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
    files, _ = _open(path)
    dialect, _, places = _translate(path, files)
    states = {name: place.read().contiguous().clone() for name, place in places.items() if re.fullmatch(STATE, name)}
    if not states:
        raise CheckpointError(f"{path} holds no state; a state file has tensors like blocks.0.att.time_state")
    if dialect.name == "official" and _has_ending(files, ".st", ".state"):
        raise CheckpointError(f"{path} does not tell whether its states are transposed; use the .pth it was made from")
    if bad := next((name for name, tensor in states.items() if not _is_finite(tensor)), None):
        raise CheckpointError(f"{bad} in {path} holds NaN or infinity; its tuning went wrong")
    return states


def _translate(path: Path, files: list[TensorFile]) -> tuple[Dialect, dict[str, Tensor], dict[str, Place]]:
    """Whose names the files have, and all their tensors under the official ones."""
    around = wrapper(name for file in files for name in file.tensors)
    dialect = find_dialect({name.removeprefix(around): t for file in files for name, t in file.tensors.items()})
    tensors: dict[str, Tensor] = {}
    places: dict[str, Place] = {}
    for file in files:
        for stored, tensor in without_numbers(file.tensors).items():
            match = dialect.to_official(stored.removeprefix(around))
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
    return dialect, tensors, places


def _fitted(path: Path, tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The tensors in the model's order and with its number of dimensions.

    Raises CheckpointError for missing, unknown and misshapen ones.
    """
    wanted = shapes_of(config)
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
        elif _without_ones(tensor.shape) != _without_ones(wanted[name]):
            has, should = ("x".join(map(str, shape)) for shape in (tensor.shape, wanted[name]))
            raise CheckpointError(f"{name} in {path} is {has}, but the other tensors of this {kind} need {should}")
        else:
            fitted[name] = tensor.reshape(wanted[name])
    return fitted


def shapes_of(config: Config) -> dict[str, torch.Size]:
    """Names and shapes of all tensors of a model.

    Only two layers are built: how many a file seems to have is for its names to say, and a layer costs far more to
    build than a name to write.
    """
    with torch.device("meta"):
        built = RWKV(config.replace(num_layers=min(config.num_layers, 2))).state_dict()
    shapes = {name: tensor.shape for name, tensor in built.items()}
    repeated = {name.removeprefix("blocks.1."): shape for name, shape in shapes.items() if name.startswith("blocks.1.")}
    for layer in range(2, config.num_layers):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in repeated.items()}
    return shapes


def _without_ones(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]


def _is_unused(name: str, config: Config) -> bool:
    return bool(re.fullmatch(f"{UNUSED_7}|{STATE}" if config.version == "7" else STATE, name))


def without_numbers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
