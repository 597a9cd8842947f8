"""A model together with its loss: what is wrapped where several devices train one model.

    learner = Learner(model, l2wrap=1e-4)
    loss, _ = learner(batch)

The model is any that has `features`, `head` and `param_groups`: an RWKV, or one of the baselines.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import remembered
from .batches import Batch
from .loss import next_token_loss


class Learner(nn.Module):
    """The loss of `model` on a batch.

    l2wrap    strength of L2Wrap
    initial   what makes the state that every row begins with (rows -> State), where that is learnt; None: the empty one
    """

    def __init__(self, model: Any, l2wrap: float = 0.0, initial: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.l2wrap, self.initial = model, l2wrap, initial

    def forward(
        self, batch: Batch, state: Any = None, num_targets: Tensor | int | None = None, carries: bool = False
    ) -> tuple[Tensor, Any]:
        """The mean loss of the batch, and with `carries` the state after it, cut off from the graph.

        state        what the rows go on from; None: they begin
        num_targets  what the sum of losses is divided by; None: how many targets the batch has
        """
        if state is None and self.initial is not None:
            state = self.initial(len(batch.tokens))
        given = {"first": batch.first, "lengths": batch.lengths}
        some = {name: tensor for name, tensor in given.items() if tensor is not None}
        x, state = self.model.features(batch.tokens, state, **some)
        loss = next_token_loss(self.model.head, x, batch.targets, self.l2wrap, num_targets=num_targets)
        if carries and torch.is_grad_enabled():
            state = state.detach()
        return loss, state if carries else None

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The groups of the model, and of the initial state where that is learnt."""
        groups: list[dict[str, Any]] = self.model.param_groups(lr, weight_decay)
        if self.initial is not None:
            named = dict(self.initial.named_parameters(prefix="initial"))
            own = {"params": list(named.values()), "names": list(named)}
            groups.append(own | {"lr": lr, "lr_multiple": 1.0, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]


def recompute_layers(model: Any) -> None:
    """From now on the layers of `model` keep their inputs only, and compute the rest again for the backward pass."""
    for block in model.blocks:
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Any, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(remembered(forward), *inputs, use_reentrant=False)
