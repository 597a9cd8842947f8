"""A model in memory, seen as a checkpoint: for saving one.

of_model(model).tensors["emb.weight"].shape
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..errors import CheckpointError
from ..models import RWKV
from .checkpoint import Checkpoint, Place, shapes_of, without_numbers

# Under which name a wrapper holds the model: torch.compile's, and DistributedDataParallel's.
COMPILED, PARALLEL = "_orig_mod", "module"


def of_model(model: nn.Module) -> Checkpoint:
    """A model as a checkpoint; torch.compile and DistributedDataParallel may be around it.

    Raises CheckpointError where there is no RWKV within, or where it has other tensors than such a model has.
    """
    model = unwrapped(model)
    # Layers can be compiled one by one, too.
    tensors = {name.replace(f"{COMPILED}.", ""): tensor.detach() for name, tensor in model.state_dict().items()}
    if any(name.endswith(".packed") for name in tensors):
        raise CheckpointError("the model is quantised; receptance.quant.save_quantised writes it")
    kind, wanted = f"RWKV-{model.config.version}", shapes_of(model.config)
    for name in sorted(tensors.keys() ^ wanted.keys()):
        has = "has the tensor" if name in tensors else "lacks the tensor"
        raise CheckpointError(f"the model {has} {name}, unlike any {kind}; save its state_dict with torch.save instead")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name]:
            raise CheckpointError(f"{name} of the model has not the shape that its config says; give it that shape")
    file = _Memory(tensors)
    places = {name: Place(file, name, "same", 0) for name in tensors}
    return Checkpoint(file.path, "official", model.config, without_numbers(tensors), places)


def unwrapped(model: nn.Module) -> RWKV:
    """The RWKV within.  Raises CheckpointError where there is none."""
    inner: nn.Module | None = model
    while inner is not None and not isinstance(inner, RWKV):
        parts = dict(inner.named_children())
        inner = parts.get(COMPILED, parts.get(PARALLEL))
    if inner is None:
        raise CheckpointError(f"no checkpoint holds a model of the kind {type(model).__name__}, only an RWKV")
    return inner


class _Memory:
    """Tensors in memory, on any device."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.tensors = Path("model"), tensors

    def read(self, name: str) -> Tensor:
        return self.tensors[name].cpu()
