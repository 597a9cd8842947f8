"""What a model remembers of the past: a value that is passed in and returned, never kept inside a module.

    logits, state = model(tokens)
    logits, state = model(more, state)       # goes on where it stopped
    fork = state                             # nothing changes a State in place, so a reference is a fork
    state.save("chat.safetensors", model)

This is the only file that knows how a state is laid out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import Config
from .errors import StateError
from .ops.reference import EMPTY_MAX
from .replacing import replacing

FORMAT = "receptance-state-1"


class Remembering(Protocol):
    """A model, as far as its states are concerned."""

    config: Config

    def state_dict(self) -> Mapping[str, Tensor]: ...


class State(NamedTuple):
    """The memory of B rows.

    shift [L, 2, B, C]     the last input of each layer's time mix and channel mix, in the dtype of the activations
    wkv   [L, B, H, N, N]  each layer's matrix S[v, k], float32 (float64 in a float64 model);
                           RWKV-4: [L, B, 3, A] = numerator, denominator, maximum
    """

    shift: Tensor
    wkv: Tensor

    @classmethod
    def zeros(
        cls,
        config: Config,
        rows: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> State:
        """The empty memory of `rows` sequences, for a model whose activations are of `dtype`."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        shift = torch.zeros(config.num_layers, 2, rows, config.dim, device=device, dtype=dtype)
        wkv = torch.zeros(config.num_layers, rows, *config.state_shape, device=device, dtype=wide)
        if config.version == "4":
            wkv[:, :, 2] = EMPTY_MAX
        return cls(shift, wkv)

    @classmethod
    def stack(cls, states: Iterable[State]) -> State:
        """The rows of several states of one model, one after the other, as one batch.

        Raises StateError where there is none, or where they are of different models.
        """
        states = list(states)
        if not states:
            raise StateError("there is no state to stack; give at least one")
        if len({(s.shift[:, :, 0].shape, s.wkv[:, 0].shape) for s in states}) > 1:
            raise StateError("these states are of different models and cannot be one batch")
        return cls(torch.cat([s.shift for s in states], 2), torch.cat([s.wkv for s in states], 1))

    @classmethod
    def from_tuned(cls, tensors: Mapping[str, Tensor], config: Config) -> State:
        """One row from a state-tuned file of the official trainers: `blocks.N.att.time_state [H, N, N]`.

        They are stored as S[v, k] for every generation, and the token shift starts at zero.
        Raises StateError where a layer is missing, has another shape or is one too many.
        """
        state = cls.zeros(config, 1)
        if len(tensors) > config.num_layers:
            raise StateError(f"the state file has {len(tensors)} layers and the model {config.num_layers}")
        for layer in range(config.num_layers):
            name = f"blocks.{layer}.att.time_state"
            if name not in tensors:
                raise StateError(f"the state file has no {name}; it is of a model with fewer layers or no state file")
            if tensors[name].shape != config.state_shape:
                raise StateError(
                    f"{name} is {list(tensors[name].shape)} and the model needs {list(config.state_shape)}; "
                    f"it was tuned for another model"
                )
            state.wkv[layer, 0] = tensors[name].to(state.wkv.dtype)
        return state

    @property
    def num_rows(self) -> int:
        """B."""
        return self.wkv.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory that the state takes; it does not depend on how much has been read."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self)

    def rows(self, index: Tensor | Sequence[int] | slice) -> State:
        """Some rows, in the given order; a row may be taken more than once."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.wkv.device)
            # An empty list has no dtype of its own, and a single number would drop the axis of the rows.
            index = index.reshape(-1).to(torch.int64 if index.dtype != torch.bool else torch.bool)
        return State(self.shift[:, :, index], self.wkv[:, index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """On another device, or for activations of another dtype (the recurrent part stays at least float32)."""
        wide = None if dtype is None else torch.float64 if dtype == torch.float64 else torch.float32
        return State(self.shift.to(device=device, dtype=dtype), self.wkv.to(device=device, dtype=wide))

    def detach(self) -> State:
        """Cut off from the graph: for truncated back-propagation through time."""
        return State(self.shift.detach(), self.wkv.detach())

    def clone(self) -> State:
        """A copy that shares no memory."""
        return State(self.shift.clone(), self.wkv.clone())

    def save(self, path: str | os.PathLike[str], model: Remembering, notes: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file that only this model will load again (`fingerprint` says in which precisions).

        `notes` are texts to keep with it, which `saved_notes` reads.
        Raises StateError where this is not a state of `model`, or where the file cannot be written.
        """
        self.check(model.config)
        own = {"format": FORMAT, "fingerprint": fingerprint(model), "version": model.config.version}
        metadata = {**(notes or {}), **own}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._asdict().items()}
        try:
            data = save(tensors, metadata)
            with replacing(Path(path)) as partial:
                partial.write_bytes(data)
        except (SafetensorError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StateError(f"{path} cannot be written: {reason.lower()}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Remembering) -> State:
        """Read what `save` wrote.

        Raises StateError where the file is not a state, is damaged, or was saved from another model.
        """
        if os.path.exists(path) and not os.path.isfile(path):
            raise StateError(f"{path} is no ordinary file; give the file that a state was saved to")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise StateError(f"{path} is a safetensors file but not a saved state")
                if metadata.get("fingerprint") != fingerprint(model):
                    raise StateError(
                        f"{path} was saved from another model (RWKV-{metadata.get('version')}); "
                        f"load it into the one it is of"
                    )
                state = cls(file.get_tensor("shift"), file.get_tensor("wkv"))
        except FileNotFoundError:
            raise StateError(f"{path} does not exist") from None
        except SafetensorError as error:
            raise StateError(f"{path} is no saved state, or it is damaged") from error
        except OSError as error:
            raise StateError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
        state.check(model.config)
        return state

    def check(self, config: Config, rows: int | None = None) -> None:
        """Raise StateError unless this is the state of such a model (and of so many rows)."""
        if self.shift.dim() != 4 or not (self.shift.is_floating_point() and self.wkv.is_floating_point()):
            raise StateError("this is no state; one has real numbers in shift [L, 2, B, C] and wkv [L, B, ...]")
        rows = self.shift.shape[2] if rows is None else rows
        shift, wkv = (config.num_layers, 2, rows, config.dim), (config.num_layers, rows, *config.state_shape)
        if self.shift.shape != shift or self.wkv.shape != wkv:
            raise StateError(
                f"a state of shapes {list(self.shift.shape)} and {list(self.wkv.shape)} does not fit; "
                f"this model and batch need {list(shift)} and {list(wkv)}"
            )


def is_saved_state(path: str | os.PathLike[str]) -> bool:
    """Whether `State.save` wrote this file."""
    return saved_notes(path).get("format") == FORMAT


def saved_notes(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that a saved state was given; none where the file is no such thing."""
    # Opening a pipe would wait for somebody to write to it.
    if not os.path.isfile(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def fingerprint(model: Remembering) -> str:
    """A name for a model: its Config and its layer norms, rounded to bfloat16.

    Layer norms are kept by every file format and left alone by every quantisation, so the name is the same for the same
    weights in any of them, in float32 and in bfloat16 (in float16 only where the weights come from bfloat16, as
    official ones do: rounding twice is another number).  Two finetunes of one model differ in them, two new models with
    nothing learnt do not.
    """
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    tensors: Mapping[str, Any] = model.state_dict()
    for name in sorted(tensors):
        if ".ln" in name or name.startswith("ln_out."):
            rounded = tensors[name].detach().to(torch.bfloat16).cpu().contiguous()
            digest.update(name.encode())
            digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
