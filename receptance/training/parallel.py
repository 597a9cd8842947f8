"""Several devices that train one model, by PyTorch's own engine: what `torchrun` starts.

    with Ranks.join(compute) as ranks:                  # alone where nothing was started
        learner = shared(learner, compute, ranks)       # DDP or FSDP2
        rows = ranks.own(16)                            # this device's rows of a step

Gradients are summed over the ranks and divided by the targets of all: any number of devices takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..devices import as_device, default_device
from ..errors import ConfigError, MissingExtraError
from .learner import Learner
from .recipe import Compute

# The first process makes tokens of the text while the others wait.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a training, and which one this is.

    rank, count   this one's number, and how many there are
    device        what this one computes on
    beside        their group for what is written while gradients are exchanged; None where this one is alone
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    beside: Any = None

    @classmethod
    @contextmanager
    def join(cls, compute: Compute) -> Iterator[Ranks]:
        """The processes that `torchrun` started; this one alone where it did not."""
        device = default_device() if compute.device == "auto" else as_device(compute.device)
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            yield cls(device=device)
            return
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        # gloo too, for checkpoints that are written meanwhile and for what is agreed on.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        try:
            yield cls(dist.get_rank(), count, device, dist.new_group(backend="gloo"))
            dist.barrier()
        finally:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def own(self, rows: int) -> range:
        """Which of the rows of a step are this process's.  Raises ConfigError where they cannot be shared evenly."""
        if rows % self.count:
            raise ConfigError(f"batch.rows is {rows}, which {self.count} processes cannot share; give a multiple")
        each = rows // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return flag if self.count == 1 else bool(self.total(torch.tensor(int(flag))))

    def all(self, flag: bool) -> bool:
        """Whether it is so in every process."""
        return not self.any(not flag)

    def agreed(self, number: float) -> float:
        """The first process's number, in all of them."""
        if self.count == 1:
            return number
        told = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(told, 0)
        return told.item()

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Every process's part of a tensor, of equal shapes, one after the other along `dim`."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts, dim)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


def shared(learner: Learner, compute: Compute, precision: torch.dtype, ranks: Ranks) -> nn.Module:
    """The learner, as all processes train it together; itself where there is one process."""
    if compute.parallel == "fsdp":
        return _sharded(learner, compute.replicas, precision, ranks)
    if ranks.count == 1:
        return learner
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    # Buffers are never learnt, and quantised matrices are buffers.
    return nn.parallel.DistributedDataParallel(learner, devices, broadcast_buffers=False)


def _sharded(learner: Learner, replicas: int, precision: torch.dtype, ranks: Ranks) -> nn.Module:
    """FSDP2: every layer, the embedding with what remains, and the head are gathered when they are needed.

    The head is a unit of its own, for the loss calls it once for each chunk.  Inputs are not cast, or the state would
    be rounded at every layer.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError as error:
        raise MissingExtraError("compute.parallel = 'fsdp' needs PyTorch 2.6 or later; update torch") from error
    if ranks.count % replicas:
        raise ConfigError(f"compute.replicas is {replicas}, which does not divide the {ranks.count} processes")
    if not dist.is_initialized():
        raise ConfigError("compute.parallel is 'fsdp' and this is one process; start it with torchrun, or leave it out")
    shape = (ranks.count,) if replicas == 1 else (replicas, ranks.count // replicas)
    names = ("shard",) if replicas == 1 else ("replica", "shard")
    mesh = init_device_mesh(ranks.device.type, shape, mesh_dim_names=names)
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in (*learner.model.blocks, learner.model.head, learner):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return learner


def inner(learner: nn.Module) -> Learner:
    """The learner itself, of what `shared` gave."""
    found = learner.module if isinstance(learner, nn.parallel.DistributedDataParallel) else learner
    assert isinstance(found, Learner)
    return found
