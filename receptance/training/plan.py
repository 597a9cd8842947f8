"""What a training will need, before anything starts: memory of each device, operations, days.

    plan = plan_of(recipe, config, tokens, gpu="h100", count=64, mfu=0.4)
    plan.seconds / 86400, plan.memory["total"]

Nothing is allocated: what the layers keep for the backward pass is counted on tensors without numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..config import Config
from ..errors import ConfigError
from ..models import RWKV, num_parameters
from ..models.rwkv import flops_per_token
from .loss import MAX_LOGITS
from .recipe import Training
from .section import suggested


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU: dense bfloat16 operations a second without sparsity, and bytes of memory, by its data sheet."""

    peak: float
    memory: float


GPUS = {
    "rtx3090": Gpu(71e12, 24e9),
    "rtx4090": Gpu(165e12, 24e9),
    "rtx5090": Gpu(209e12, 32e9),
    "l40s": Gpu(362e12, 48e9),
    "a100-40": Gpu(312e12, 40e9),
    "a100": Gpu(312e12, 80e9),
    "h100": Gpu(989e12, 80e9),
    "h200": Gpu(989e12, 141e9),
    "b200": Gpu(2250e12, 180e9),
    "mi300x": Gpu(1307e12, 192e9),
}
# Tokens of a row for which the layers' memory is counted; it grows in proportion.
COUNTED = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """The needs of a training.

    parameters         of the model
    flops_per_token    of a step: forward, backward, and forward again where layers are recomputed
    tokens             of the training; None where it is bound by time
    tokens_per_second  of all devices together
    memory             bytes of one device by what they are for, and their "total"
    gpu, count, mfu    as asked
    """

    parameters: int
    flops_per_token: float
    tokens: float | None
    tokens_per_second: float
    memory: dict[str, float]
    gpu: str
    count: int
    mfu: float

    @property
    def seconds(self) -> float | None:
        """How long it takes."""
        return None if self.tokens is None else self.tokens / self.tokens_per_second

    @property
    def fits(self) -> bool:
        """Whether a device has the memory."""
        return self.memory["total"] <= GPUS[self.gpu].memory


def plan_of(
    recipe: Training, config: Config, tokens: float | None, gpu: str = "h100", count: int = 1, mfu: float = 0.4
) -> Plan:
    """What a training of a model of this shape needs.

    mfu    share of the peak that is reached, operations of recomputing included: 0.4 is good for large models

    Raises ConfigError for a GPU that is not known.
    """
    if gpu not in GPUS:
        raise ConfigError(f"no GPU is known as {gpu!r}; {suggested(gpu, GPUS, 'there are')}")
    with torch.device("meta"):
        model = RWKV(config)
    per_token = 3.0 * flops_per_token(model)
    speed = count * mfu * GPUS[gpu].peak / per_token
    memory = _memory(recipe, model, count)
    return Plan(
        parameters=num_parameters(model),
        flops_per_token=per_token * (4 / 3 if recipe.compute.recompute else 1.0),
        tokens=tokens,
        tokens_per_second=speed * (3 / 4 if recipe.compute.recompute else 1.0),
        memory=memory | {"total": sum(memory.values())},
        gpu=gpu,
        count=count,
        mfu=mfu,
    )


def _memory(recipe: Training, model: RWKV, count: int) -> dict[str, float]:
    """Bytes of one device."""
    config, compute, batch = model.config, recipe.compute, recipe.batch
    parameters = num_parameters(model)
    is_sharded = compute.parallel == "fsdp" and count > 1
    parts = count / compute.replicas if is_sharded else 1
    # FSDP gathers a layer at a time, and the one after it meanwhile.
    gathered = 2 * parameters / config.num_layers * 2 if is_sharded else 2 * parameters
    rows = batch.rows_at_once or max(1, batch.rows // count)
    layers = config.num_layers
    kept = saved_bytes(config) * rows * batch.length
    stream = 4.0 * config.dim * rows * batch.length
    return {
        "weights, float32": 4 * parameters / parts,
        "AdamW's moments": 8 * parameters / parts,
        "gradients": 4 * parameters / parts,
        "weights, bfloat16": gathered,
        "kept for the backward pass": kept + layers * stream if compute.recompute else layers * kept,
        "logits of a chunk": 10.0 * min(MAX_LOGITS, rows * batch.length * config.vocab_size),
    }


def saved_bytes(config: Config) -> float:
    """Bytes that one layer keeps of one token for the backward pass, in bfloat16."""
    sizes: dict[int, int] = {}
    held: list[Any] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            # Held, so that no two have one address.
            held.append(tensor)
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    def of(num_layers: int) -> int:
        sizes.clear()
        with torch.device("meta"):
            model = RWKV(config.replace(num_layers=num_layers, vocab_size=2)).to(torch.bfloat16)
            tokens = torch.zeros(1, COUNTED, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.features(tokens)
        return sum(sizes.values())

    # The first layer is unlike the others, and something is kept outside of all layers.
    return (of(3) - of(2)) / COUNTED
