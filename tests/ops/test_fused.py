"""What stands between matrix products and recurrences: the compiled form of each op against PyTorch's functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from receptance import ops
from receptance.ops import cpu, dispatch
from tests.models.cases import small, used

from .cases import relative

pytestmark = pytest.mark.skipif(cpu.refusal() is not None, reason="needs Numba")

# Rows, tokens, heads, head size: more than a block of rows, heads that fill no vector, a head that fills several.
SIZES = [(2, 35, 5, 7), (1, 17, 2, 64), (3, 21, 1, 600)]
FUSED = ("lerps", "delta_inputs", "read_out", "squared_relu")


def made(op: str, size: tuple[int, ...], dtype: torch.dtype, variant: int) -> tuple[Callable[..., Any], list[Tensor]]:
    """A function of tensors that calls `op`, and the tensors; even and odd variants leave out what may be left out."""
    torch.manual_seed(0)
    B, T, H, N = size
    vectors = [torch.randn(B, T, H * N, dtype=torch.float64) for _ in range(6)]
    weights = [torch.randn(1, 1, H * N, dtype=torch.float64) for _ in range(5)]
    if op == "lerps":
        offsets = [torch.randn(4, B, T, H * N, dtype=torch.float64)] if variant else []
        inputs = [*vectors[:2], *weights[:4], *offsets]
        function = lambda start, end, *rest: ops.lerps(start, end, rest[:4], *rest[4:])  # noqa: E731
    elif op == "delta_inputs":
        # A head of zeros, as a key can be: its unit vector is 0.
        vectors[2][0, 3, :N] = 0
        inputs = [*vectors[:4], *weights[:4], *((*vectors[4:], weights[4]) if variant else ())]
        function = lambda *x: ops.delta_inputs(*x[:4], x[8:] or None, *x[4:8], N)  # noqa: E731
    elif op == "read_out":
        heads = [x.unflatten(-1, (H, N)) for x in vectors[:4]]
        inputs = [*heads, weights[0].view(H, N), weights[1].flatten(), weights[2].flatten(), *vectors[4 : 4 + variant]]
        function = lambda y, r, k, v, u, w, b, g=None: ops.read_out(y, r, k, v, u, g, w, b, 1e-3, g is None)  # noqa: E731
    else:
        inputs, function = vectors[:1], ops.squared_relu
    return function, [x.to(dtype) for x in inputs]


def computed(form: str, function: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    """All outputs of `function`, and the gradients of all inputs for a loss that weighs each number differently."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    with ops.use(form):
        outputs = function(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    torch.manual_seed(7)
    loss = sum((x.double() * torch.randn(x.shape, dtype=torch.float64).to(x.device)).sum() for x in outputs)
    return [*(x.detach() for x in outputs), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("variant", [0, 1], ids=["least", "all"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("op", FUSED)
def test_values_and_gradients_equal_those_of_pytorch(op: str, size: tuple[int, ...], variant: int) -> None:
    function, inputs = made(op, size, torch.float32, variant)
    truth = computed("reference", function, [x.double() for x in inputs])
    got = computed("numba", function, inputs)
    assert [x.shape for x in got] == [x.shape for x in truth]
    assert max(relative(g.double(), t) for g, t in zip(got, truth, strict=True)) < 2e-5


@pytest.mark.parametrize("variant", [0, 1], ids=["least", "all"])
@pytest.mark.parametrize("op", FUSED)
def test_bfloat16_is_computed_in_float32_and_rounded_once(op: str, variant: int) -> None:
    function, inputs = made(op, SIZES[0], torch.bfloat16, variant)
    truth = computed("reference", function, [x.double() for x in inputs])
    got = computed("numba", function, inputs)
    assert all(x.dtype == torch.bfloat16 for x in got)
    # Half a unit in the last of 8 bits, and gradients meet a second rounding on their way.
    assert max(relative(g.double(), t) for g, t in zip(got, truth, strict=True)) < 2**-7


@pytest.mark.parametrize("op", FUSED)
def test_views_are_read_like_whole_tensors(op: str) -> None:
    function, inputs = made(op, SIZES[0], torch.float32, 1)
    views = [x.mT.contiguous().mT if x.dim() > 1 else x for x in inputs]
    assert any(not x.is_contiguous() for x in views)
    want, got = computed("numba", function, inputs), computed("numba", function, views)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("op", FUSED)
def test_gradients_do_not_depend_on_the_number_of_threads(op: str) -> None:
    function, inputs = made(op, (4, 64, 2, 8), torch.float32, 1)
    before, results = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 8):
            torch.set_num_threads(num_threads)
            results.append(computed("numba", function, inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


@contextmanager
def counting_saved_tensors() -> Iterator[list[Tensor]]:
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        yield saved


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    for op in FUSED:
        function, inputs = made(op, SIZES[0], torch.float32, 1)
        with counting_saved_tensors() as saved, ops.use("numba"):
            with torch.no_grad():
                function(*(x.requires_grad_() for x in inputs))
            assert not saved, op
            function(*inputs)
            assert saved, op


@pytest.mark.parametrize("op", FUSED)
def test_pytorch_accepts_the_operator(op: str) -> None:
    """Schema, shapes without data, autograd and compilation, by PyTorch's own check."""
    function, inputs = made(op, SIZES[0], torch.float32, 1)
    inputs = [x.requires_grad_() for x in inputs]
    calls: list[tuple[Any, tuple[Any, ...]]] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function.namespace == "receptance":
                calls.append((function, args))
            return function(*args, **(kwargs or {}))

    with Recorder(), ops.use("numba"):
        outputs = function(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        sum(x.sum() for x in outputs).backward()
    assert len(calls) == 2, "one operator forward and one backward"
    (forward, given), (backward, kept) = calls
    torch.library.opcheck(forward, given)
    torch.library.opcheck(backward, tree_map_only(Tensor, Tensor.detach, kept))


@pytest.mark.parametrize("name", ["4", "5.0", "5.2", "6", "6 wide", "7"])
def test_models_agree_on_ragged_and_packed_rows_that_go_on(name: str) -> None:
    """float32, with `lengths`, `first` and a state in which something has been read: logits, state and gradients."""
    model = small(name, torch.float32).train()
    state = used(model, 3)
    tokens = torch.randint(31, (3, 40))
    lengths, first = torch.tensor([40, 23, 0]), torch.zeros(3, 40, dtype=torch.bool)
    first[0, 0] = first[0, 17] = first[1, 18] = True
    live = (torch.arange(40) < lengths[:, None])[..., None]
    results = []
    for form in ("reference", "numba"):
        model.zero_grad()
        with only(form):
            logits, end = model(tokens, state, lengths, first)
        (logits * live).square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([logits * live, end.shift, end.wkv, *gradients])
    assert len(results[0]) == len(results[1]) > 20
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


@contextmanager
def only(form: str) -> Iterator[None]:
    """Fused ops in this form, the recurrences always as the time loop."""
    kept = dict(dispatch.FORMS)
    dispatch.FORMS.update({op: tuple(f for f in kept[op] if f.name == form) for op in FUSED})
    dispatch.FORMS.update({op: kept[op][-1:] for op in kept if op not in FUSED})
    try:
        yield
    finally:
        dispatch.FORMS.update(kept)


def test_checkpointing_computes_the_same_gradients() -> None:
    function, inputs = made("delta_inputs", SIZES[0], torch.float32, 1)
    want = computed("numba", function, inputs)
    again = computed("numba", lambda *x: checkpoint(function, *x, use_reentrant=False), inputs)
    assert all(torch.equal(g, w) for g, w in zip(again, want, strict=True))


def test_the_whole_graph_of_a_float32_model_compiles() -> None:
    model = small("7", torch.float32)
    tokens = torch.randint(31, (2, 33))
    want, _ = model(tokens)
    got, _ = torch.compile(model, backend="aot_eager", fullgraph=True)(tokens)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    got.sum().backward()


def test_under_autocast_mixtures_come_in_the_precision_of_the_products() -> None:
    function, inputs = made("lerps", SIZES[0], torch.float32, 1)
    with ops.use("numba"):
        want = function(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            got = function(*inputs)
    assert all(torch.equal(g, w.bfloat16()) for g, w in zip(got, want, strict=True))


def test_float64_and_short_calls_stay_with_pytorch() -> None:
    for op in FUSED:
        assert dict(ops.explain(op, 512))["numba"] is None
        assert "float64" in str(dict(ops.explain(op, 512, dtype=torch.float64))["numba"])
        assert "started faster" in str(dict(ops.explain(op, 1))["numba"])
        assert "for the CPU" in str(dict(ops.explain(op, 512, device="cuda"))["numba"])
