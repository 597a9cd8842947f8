"""The chunked loss is the plain loss; L2Wrap is its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from receptance.training.loss import IGNORED, next_token_loss

B, T, C, V = 3, 10, 8, 40


@pytest.fixture
def parts() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(C, V, bias=False).double()
    targets = torch.randint(V, (B, T))
    targets[1, 3:] = IGNORED
    return head, torch.randn(B, T, C, dtype=torch.float64, requires_grad=True), targets


def plain_loss(head: nn.Linear, x: Tensor, targets: Tensor, l2wrap: float) -> Tensor:
    """Cross entropy plus a term whose gradient is L2Wrap's, written by autograd and not by hand."""
    logits = head(x).flatten(0, 1)
    counted = targets.flatten() != IGNORED
    pull = (logits.amax(-1)[counted] ** 2).sum() * l2wrap / 2 / counted.sum()
    return F.cross_entropy(logits, targets.flatten()) + (pull - pull.detach())


@pytest.mark.parametrize("l2wrap", [0.0, 0.3])
@pytest.mark.parametrize("max_logits", [1, 7 * V, 10**9])
def test_value_and_gradients_are_those_of_the_plain_loss(
    parts: tuple[nn.Linear, Tensor, Tensor], l2wrap: float, max_logits: int
) -> None:
    head, x, targets = parts
    results = []
    for loss in (plain_loss(head, x, targets, l2wrap), next_token_loss(head, x, targets, l2wrap, max_logits)):
        # Not 1: a gradient that arrives at the loss must scale everything, the pull of L2Wrap too.
        results.append((loss, *torch.autograd.grad(loss * 2.5, [x, head.weight])))
    for expected, found in zip(*results, strict=True):
        assert (expected - found).abs().max() < 1e-12


def test_l2wrap_pulls_only_counted_rows(parts: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, x, targets = parts
    (gradient,) = torch.autograd.grad(next_token_loss(head, x, targets, l2wrap=10.0), x)
    assert gradient[1, 3:].abs().max() == 0
    assert gradient[0].abs().amin(-1).min() > 0


def test_no_tensor_of_all_logits_is_ever_held(parts: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, x, targets = parts
    made, kept = [], []
    head.register_forward_hook(lambda module, inputs, output: made.append(output.numel()))

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = next_token_loss(head, x, targets, l2wrap=1e-4, max_logits=4 * V)
    loss.backward()
    assert max(made) == 4 * V
    assert max(kept) < B * T * V


def test_all_ignored_is_zero_and_not_nan() -> None:
    head, x = nn.Linear(C, V), torch.randn(1, 4, C, requires_grad=True)
    loss = next_token_loss(head, x, torch.full((1, 4), IGNORED), l2wrap=1e-4)
    loss.backward()
    assert loss == 0 and x.grad is not None and x.grad.abs().max() == 0


def test_bfloat16_features_give_a_float32_loss() -> None:
    torch.manual_seed(0)
    head, x = nn.Linear(C, V).bfloat16(), torch.randn(2, 5, C).bfloat16()
    targets = torch.randint(V, (2, 5))
    loss = next_token_loss(head, x, targets)
    assert loss.dtype == torch.float32
    assert (loss - next_token_loss(head.float(), x.float(), targets)).abs() < 0.02
