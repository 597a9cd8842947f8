"""One complete checkpoint of a training, written while the training goes on.

    saving = Saving(Path("runs/mine/checkpoints/step-0001000"), trainer)
    if saving.is_done(): saving.finish()
    load(path, trainer)

    *.safetensors     what is learnt, under the names of the model; AdamW's two moments of each, under NAME.exp_avg and
                      NAME.exp_avg_sq; and what rows that go on remember, under state.shift and state.wkv
    training.json     where the training stands, the model's shape, the recipe, versions

Written by PyTorch's distributed checkpoints, each process its own part: what several devices wrote, one reads, and the
other way round.  Nothing is pickled.  The folder gets its name when everything in it is on disk.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import __version__
from ..errors import CheckpointError, ConfigError, MissingExtraError
from ..models import RWKV
from ..state import State
from .step import Position

if TYPE_CHECKING:
    from .trainer import Trainer

ABOUT = "training.json"
FORMAT = "receptance-training-1"
MOMENTS = ("exp_avg", "exp_avg_sq")


class Saving:
    """A checkpoint that is being written from a copy of what it holds."""

    def __init__(self, path: Path, trainer: Trainer) -> None:
        dcp = distributed_checkpoints()
        self.path, self.is_first = path, trainer.ranks.is_first
        # The dot hides it from whoever looks for checkpoints.
        self._partial = path.with_name(f".{path.name}.partial")
        if self.is_first:
            shutil.rmtree(self._partial, ignore_errors=True)
            _attempt(lambda: self._partial.mkdir(parents=True))
            _attempt(lambda: _write(self._partial / ABOUT, about(trainer)))
        trainer.ranks.wait()
        tensors = {name: _copy(tensor) for name, tensor in _tensors(trainer).items()}
        writer = dcp.HuggingFaceStorageWriter(str(self._partial), save_distributed=True)
        self._future = dcp.async_save(tensors, storage_writer=writer, process_group=trainer.ranks.beside)

    def is_done(self) -> bool:
        """Whether everything is on disk, or cannot be."""
        return bool(self._future.done())

    def finish(self) -> None:
        """Wait for it and give it its name.  Raises CheckpointError where it cannot be written."""
        _attempt(self._future.result)
        if self.is_first:
            shutil.rmtree(self.path, ignore_errors=True)
            _attempt(lambda: os.replace(self._partial, self.path))


def about(trainer: Trainer) -> dict[str, Any]:
    """What `training.json` says."""
    config = trainer.model.config.to_dict() if isinstance(trainer.model, RWKV) else None
    return {
        "format": FORMAT,
        "position": trainer.position.to_dict(),
        "model": config,
        "state_rows": trainer.recipe.batch.rows if trainer.state is not None else 0,
        "recipe": trainer.recipe.model_dump(mode="json"),
        "versions": {"receptance": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def read_about(path: Path) -> dict[str, Any]:
    """What stands in a checkpoint's `training.json`.  Raises CheckpointError where it is none."""
    try:
        values = json.loads((path / ABOUT).read_text("utf-8"))
        if values["format"] != FORMAT:
            raise ValueError
        Position.of(values["position"])
    except OSError as error:
        raise CheckpointError(f"{path} is no checkpoint of a training: {(error.strerror or '').lower()}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / ABOUT} is damaged or of another program; take an earlier checkpoint") from error
    found: dict[str, Any] = values
    return found


def load(path: Path, trainer: Trainer) -> None:
    """Put a trainer where a checkpoint left one.

    Raises CheckpointError where the checkpoint is damaged or of another model, ConfigError where the recipe reads the
    text in another way.
    """
    told = read_about(path)
    _check_same_text(path, told["recipe"].get("batch", {}), trainer)
    position = Position.of(told["position"])
    # Whoever goes on has changed something, or hopes for better luck.
    position.skipped_in_a_row = 0
    stored = _sizes(path)
    parameters = learnt(trainer)
    _check_same_model(path, stored, parameters)
    wanted: dict[str, Tensor] = {name: p.detach() for name, p in parameters.items()}
    moments = {
        name: {moment: torch.zeros_like(p.detach()) for moment in MOMENTS}
        for name, p in parameters.items()
        if f"{name}.{MOMENTS[0]}" in stored
    }
    wanted |= {f"{name}.{key}": tensor for name, both in moments.items() for key, tensor in both.items()}
    state = None
    if told["state_rows"]:
        state = State(*(torch.zeros(stored[f"state.{name}"]) for name in State._fields))
        wanted |= {f"state.{name}": tensor for name, tensor in state._asdict().items()}
    read_weights(path, wanted, alone=trainer.ranks.count == 1)
    for name, both in moments.items():
        trainer.optimizer.state[parameters[name]] = {"step": _count(trainer, parameters[name], position), **both}
    if state is not None:
        trainer.state = state.rows(slice(trainer.rows.start, trainer.rows.stop)).to(trainer.ranks.device)
    trainer.position = position


def _check_same_text(path: Path, before: Mapping[str, Any], trainer: Trainer) -> None:
    """Raise ConfigError where the steps to come would not read what comes next."""
    now = trainer.recipe.batch.model_dump(mode="json")
    for name in ("rows", "length", "order", "apart", "seed"):
        if before.get(name) != now[name]:
            raise ConfigError(
                f"batch.{name} is {now[name]} and was {before.get(name)} when {path.name} was saved; "
                f"leave it as it was, or begin anew in another folder"
            )


def _check_same_model(path: Path, stored: Mapping[str, torch.Size], parameters: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where what is learnt has other names or shapes."""
    for name, parameter in parameters.items():
        if name not in stored or stored[name] != parameter.shape:
            found = f"is {list(stored[name])}" if name in stored else "is missing"
            raise CheckpointError(
                f"{path} is of another model: {name} {found} and this one's is {list(parameter.shape)}; "
                f"give another folder, or the recipe that it was made with"
            )


def read_weights(path: Path, wanted: Mapping[str, Tensor], alone: bool = True) -> None:
    """Fill tensors by name from a checkpoint; without `alone` all processes do it together, each its parts.

    Raises CheckpointError where it is damaged.
    """
    dcp = distributed_checkpoints()
    try:
        dcp.load(dict(wanted), storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=alone)
    except (Exception, dcp.CheckpointException) as error:
        # Whatever a damaged file makes of a library: an error of safetensors, of the plan, of a shape.
        raise CheckpointError(f"{path} is damaged and cannot be read; take an earlier checkpoint") from error


def learnt(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    """What the optimiser moves, by name."""
    groups = trainer.optimizer.param_groups
    return {name: p for group in groups for name, p in zip(group["names"], group["params"], strict=True)}


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    """All that a checkpoint holds.  Of a state that goes on every process has its rows, and the checkpoint all."""
    found: dict[str, Tensor] = {}
    for name, parameter in learnt(trainer).items():
        found[name] = parameter.detach()
        kept = trainer.optimizer.state.get(parameter, {})
        found |= {f"{name}.{moment}": kept[moment] for moment in MOMENTS if moment in kept}
    if trainer.state is not None:
        found["state.shift"] = trainer.ranks.gather(trainer.state.shift, 2)
        found["state.wkv"] = trainer.ranks.gather(trainer.state.wkv, 1)
    return found


def _copy(tensor: Tensor) -> Tensor:
    """What is written while the training goes on must not change; what lies on another device is copied anyway."""
    return tensor.clone() if tensor.device.type == "cpu" else tensor


def _count(trainer: Trainer, parameter: Tensor, position: Position) -> Tensor:
    """AdamW's own count of its steps."""
    fused = bool(trainer.optimizer.defaults["fused"])
    return torch.tensor(float(position.num_taken), device=parameter.device if fused else "cpu")


def _sizes(path: Path) -> dict[str, torch.Size]:
    """The shapes of the tensors in a checkpoint."""
    dcp = distributed_checkpoints()
    try:
        metadata = dcp.HuggingFaceStorageReader(str(path)).read_metadata()
    except Exception as error:
        raise CheckpointError(f"{path} is damaged and cannot be read; take an earlier checkpoint") from error
    return {name: entry.size for name, entry in metadata.state_dict_metadata.items()}


def distributed_checkpoints() -> Any:
    """PyTorch's own, which this module is written by.  Raises MissingExtraError where it is too old."""
    import torch.distributed.checkpoint as dcp

    if not hasattr(dcp, "HuggingFaceStorageWriter"):
        raise MissingExtraError("checkpoints of trainings need PyTorch 2.8 or later; update torch")
    # It is said from a thread of its own, so that no context here would do.
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
    return dcp


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with path.open("w") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _attempt(act: Callable[[], Any]) -> None:
    """Raises CheckpointError for what the disk refuses."""
    try:
        act()
    except (Exception, distributed_checkpoints().CheckpointException) as error:
        # What each process met is inside of PyTorch's own, which is no Exception.
        inner = next(iter(getattr(error, "failures", {}).values()), (error,))[0]
        words = getattr(inner, "strerror", None) or (str(inner).strip().splitlines() or [type(inner).__name__])[-1]
        raise CheckpointError(f"the checkpoint cannot be written: {words[:1].lower()}{words[1:]}") from error
