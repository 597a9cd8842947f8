"""The recurrences in Numba as operators of PyTorch: opcheck, compile, checkpointing, threads; every head size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

pytest.importorskip("numba")

from receptance import ops
from receptance.errors import InputError
from receptance.ops.cpu import recurrences
from tests.ops.cases import boundaries, make, relative

RECURRENCES = ("wkv4", "wkv6", "wkv7")


def gradients(function: object, inputs: list[Tensor], first: Tensor | None) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y, state = function(*leaves, first)  # type: ignore[operator]
    graded = state[:, :2] if state.dim() == 3 else state
    return [y, state, *torch.autograd.grad(y.square().sum() + graded.square().sum(), leaves)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("op", RECURRENCES)
def test_opcheck(op: str, packed: bool) -> None:
    inputs = [x.requires_grad_() for x in make(op, 2, 34, torch.float32)]
    first = boundaries(2, 34) if packed else None
    if op == "wkv4":
        torch.library.opcheck(recurrences._mean_operator, (*inputs, first, True))
    else:
        torch.library.opcheck(recurrences._matrix_operator, (inputs[:-1], inputs[-1], first, True))


@pytest.mark.parametrize("op", RECURRENCES)
def test_full_graph_compile_with_and_without_gradients(op: str) -> None:
    inputs = make(op, 2, 19, torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(ops.OPS[op], fullgraph=True, backend="aot_eager")
    want, got = gradients(ops.OPS[op], inputs, None), gradients(compiled, inputs, None)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
    with torch.no_grad():
        assert all(torch.equal(g, w) for g, w in zip(compiled(*inputs), ops.OPS[op](*inputs), strict=True))


@pytest.mark.parametrize("op", RECURRENCES)
def test_checkpointing_gives_the_same_gradients(op: str) -> None:
    inputs, first = make(op, 2, 40, torch.float32), boundaries(2, 40)

    def again(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = checkpoint(ops.OPS[op], *arguments, use_reentrant=False)
        return result

    want, got = gradients(ops.OPS[op], inputs, first), gradients(again, inputs, first)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("op", RECURRENCES)
def test_a_loss_that_needs_one_result_only(op: str) -> None:
    inputs = [x.requires_grad_() for x in make(op, 2, 20, torch.float32)]
    for which in (0, 1):
        got, want = [], []
        for form, found in (("numba", got), ("reference", want)):
            with ops.use(form):
                result = ops.OPS[op](*inputs)[which]
            graded = result[:, :2] if which and op == "wkv4" else result
            found += torch.autograd.grad(graded.sum(), inputs, allow_unused=True)
        for g, w in zip(got, want, strict=True):
            assert relative(g, torch.zeros_like(g) if w is None else w) < 1e-4 or (w is None and not g.any())


@pytest.mark.parametrize("op", RECURRENCES)
def test_one_gradient_from_strided_memory(op: str) -> None:
    inputs = make(op, 2, 20, torch.float32)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    # 2 is k, or v of wkv4.
    strided[2].requires_grad_()
    inputs[2].requires_grad_()
    assert not strided[2].is_contiguous()
    got, _ = ops.OPS[op](*strided)
    with ops.use("reference"):
        want, _ = ops.OPS[op](*inputs)
    assert relative(got, want) < 1e-5
    ((d_got,), (d_want,)) = torch.autograd.grad(got.sum(), strided[2]), torch.autograd.grad(want.sum(), inputs[2])
    assert relative(d_got, d_want) < 1e-5


def test_one_decay_for_all_tokens_and_its_gradient() -> None:
    _, u, k, v, state = make("wkv4", 2, 20, torch.float32)
    decay = -torch.rand(16)
    found = {}
    for form in ("numba", "reference"):
        leaf = decay.clone().requires_grad_()
        with ops.use(form):
            y, _ = ops.wkv4(leaf.expand(2, 20, 16), u, k, v, state)
        found[form] = y, torch.autograd.grad(y.square().sum(), leaf)[0]
    assert all(relative(g, w) < 1e-5 for g, w in zip(found["numba"], found["reference"], strict=True))


@pytest.mark.parametrize("size", [5, 33, 64])
@pytest.mark.parametrize("op", ["wkv6", "wkv7"])
def test_every_head_size(op: str, size: int) -> None:
    inputs, first = make(op, 2, 35, torch.float32, 3, size), boundaries(2, 35)
    with ops.use("reference"):
        want = gradients(ops.OPS[op], [x.double() for x in inputs], first)
    with ops.use("numba"):
        got = gradients(ops.OPS[op], inputs, first)
    assert max(relative(g.double(), w) for g, w in zip(got, want, strict=True)) < 3e-6


@pytest.mark.parametrize("op", RECURRENCES)
def test_the_number_of_threads_changes_nothing(op: str) -> None:
    inputs, before = make(op, 3, 50, torch.float32, 4, 16), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 8):
            torch.set_num_threads(number)
            found.append(gradients(ops.OPS[op], inputs, None))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(g, w) for g, w in zip(other, found[0], strict=True))


def test_float64_is_refused_by_name() -> None:
    inputs = make("wkv6", 1, 4)
    assert ops.explain("wkv6", 4, dtype=torch.float64)[0] == ("numba", "its kernels compute in float32, not in float64")
    with ops.use("numba"), pytest.raises(InputError, match="reference"):
        ops.wkv6(*inputs)
    y, state = ops.wkv6(*inputs[:4], inputs[4])
    assert y.dtype == state.dtype == torch.float64
    assert ops.explain("wkv6", 4, device="cuda")[0] == ("numba", "its kernels are for the CPU, not for cuda")
