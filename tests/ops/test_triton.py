"""The forms in Triton against the time loop in float64: on a GPU where there is one, else by Triton's interpreter.

The interpreter multiplies bfloat16 wrongly; what is said of it is tested on a GPU only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from receptance import Config, build, ops
from receptance.errors import InputError
from receptance.ops import dispatch
from receptance.ops import triton as kernels
from tests.conftest import ROOT
from tests.models.cases import used

from .cases import BOUND_7, boundaries, make, relative
from .test_forms import compute
from .test_fused import FUSED, SIZES, computed, made

pytest.importorskip("triton", reason="Triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# A GPU multiplies float32 in three parts, which loses a little.
BOUND = 1e-6 if DEVICE == "cpu" else 1e-5
WITHOUT_GPU = os.environ | {"TRITON_INTERPRET": "0"}


@pytest.fixture(autouse=True)
def one_part(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets into how many programs the values of a head are divided."""
    from receptance.ops.triton import recurrences

    def divide(parts: int) -> None:
        monkeypatch.setattr(recurrences, "_num_parts", lambda *_: parts)

    divide(1)
    return divide


def moved(function: Callable[..., Any], inputs: list[Tensor], *more: Any) -> list[Tensor]:
    """What `function` makes of the inputs on the device, on the CPU."""
    return [x.cpu() for x in function([x.to(DEVICE) for x in inputs], *more)]


# wkv4's scan is slow to interpret.
CASES = [(op, length, parts) for op in ("wkv6", "wkv7") for length in (1, 16, 31, 64, 77) for parts in (1, 2)]
CASES += [("wkv4", length, 1) for length in (1, 32, 45)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("op", "length", "parts"), CASES)
def test_the_recurrences_equal_the_time_loop(
    op: str, length: int, parts: int, packed: bool, one_part: Callable[[int], None]
) -> None:
    """Values, states and gradients in float32."""
    one_part(parts)
    inputs = make(op, 3, length, torch.float32, size=32)
    first = boundaries(3, length) if packed else None
    exact = compute(op, "reference", [x.double() for x in inputs], first)
    got = moved(lambda x: compute(op, "triton", x, None if first is None else first.to(DEVICE)), inputs)
    assert max(relative(value.double(), truth) for value, truth in zip(got, exact, strict=True)) < BOUND


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("length", [1, 2, 15])
@pytest.mark.parametrize("op", ["wkv4", "wkv6", "wkv7"])
def test_a_few_tokens_without_gradients(op: str, length: int, packed: bool) -> None:
    inputs = make(op, 3, length, torch.float32, size=32)
    first = boundaries(3, length) if packed else None
    with torch.no_grad():
        with ops.use("reference"):
            exact = ops.OPS[op](*(x.double() for x in inputs), first)
        with ops.use("triton"):
            got = ops.OPS[op](*(x.to(DEVICE) for x in inputs), None if first is None else first.to(DEVICE))
    assert max(relative(value.cpu().double(), truth) for value, truth in zip(got, exact, strict=True)) < 1e-6


EXTREMES = [("wkv7", -1e-7), ("wkv7", -BOUND_7), ("wkv6", -1e-7), ("wkv6", -1000.0), ("wkv4", -1000.0)]


@pytest.mark.parametrize(("op", "strength"), EXTREMES)
def test_the_weakest_and_the_strongest_decay(op: str, strength: float) -> None:
    inputs = make(op, 2, 40, torch.float32, size=16)
    inputs[0 if op == "wkv4" else 1].fill_(strength)
    exact = compute(op, "reference", [x.double() for x in inputs], None)
    got = moved(lambda x: compute(op, "triton", x, None), inputs)
    for value, truth in zip(got, exact, strict=True):
        # Where the decay is strongest, its gradient is a number that float32 cannot hold.
        assert relative(value.double(), truth) < 1e-5 or value.abs().max() <= truth.abs().max() < 1e-30


def test_wkv7_where_one_key_repeats() -> None:
    """Then the powers of a chunk's matrix are huge, and its inverse is not."""
    inputs = make("wkv7", 1, 96, torch.float32, size=16)
    inputs[1].fill_(-1e-3)
    key = torch.nn.functional.normalize(torch.randn(16), dim=0)
    inputs[4][:] = -key
    inputs[5][:] = key
    exact = compute("wkv7", "reference", [x.double() for x in inputs], None)
    got = moved(lambda x: compute("wkv7", "triton", x, None), inputs)
    assert max(relative(value.double(), truth) for value, truth in zip(got, exact, strict=True)) < 2e-5


@pytest.mark.parametrize("op", ["wkv4", "wkv6", "wkv7"])
def test_an_ended_row_leaves_the_state_alone_bit_for_bit(op: str) -> None:
    """And where it meets an empty state, gradients are finite."""
    inputs = make(op, 2, 20, torch.float32, size=16)
    for held in {"wkv4": (0,), "wkv6": (1, 2), "wkv7": (1, 2, 5)}[op]:
        inputs[held].zero_()
    if op == "wkv4":
        inputs[2].fill_(-torch.inf)
    y, state, *gradients = moved(lambda x: compute(op, "triton", x, None), inputs)
    assert torch.equal(state, inputs[-1])
    assert all(torch.isfinite(x).all() for x in (y, *gradients))


@pytest.mark.parametrize("variant", [0, 1], ids=["least", "all"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("op", FUSED)
def test_what_stands_between_equals_pytorch(op: str, size: tuple[int, ...], variant: int) -> None:
    function, inputs = made(op, size, torch.float32, variant)
    truth = computed("reference", function, [x.double() for x in inputs])
    got = moved(lambda x: computed("triton", function, x), inputs)
    assert [x.shape for x in got] == [x.shape for x in truth]
    assert max(relative(g.double(), t) for g, t in zip(got, truth, strict=True)) < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [5, 300, 5000])
def test_cross_entropy_equals_pytorch(vocab: int, dtype: torch.dtype) -> None:
    """With positions that do not count, and a pull on the largest logits that is felt."""
    logits, targets = (5 * torch.randn(7, vocab)).to(dtype), torch.randint(vocab, (7,))
    targets[2] = targets[5] = ops.IGNORED
    targets[3] = logits[3].argmax()

    def both(form: str, logits: Tensor, targets: Tensor) -> list[Tensor]:
        logits = logits.detach().requires_grad_()
        with ops.use(form):
            loss = ops.cross_entropy(logits, targets, l2wrap=0.03)
        return [loss.detach(), *torch.autograd.grad(3 * loss, logits)]

    exact = both("reference", logits.double(), targets)
    got = moved(lambda x: both("triton", *x), [logits, targets])
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype and not got[1][2].any()
    bound = 1e-6 if dtype == torch.float32 else 2**-7
    assert relative(got[0].double(), exact[0]) < 1e-6 and relative(got[1].double(), exact[1]) < bound


@pytest.mark.parametrize("op", FUSED)
def test_bfloat16_is_computed_in_float32_and_rounded_once(op: str) -> None:
    function, inputs = made(op, SIZES[0], torch.bfloat16, 1)
    truth = computed("reference", function, [x.double() for x in inputs])
    got = moved(lambda x: computed("triton", function, x), inputs)
    assert all(x.dtype == torch.bfloat16 for x in got)
    assert max(relative(g.double(), t) for g, t in zip(got, truth, strict=True)) < 2**-7


@pytest.mark.parametrize("version", ["6", "7"])
def test_a_model_agrees_on_ragged_and_packed_rows_that_go_on(version: str) -> None:
    """With `lengths`, `first` and a state in which something has been read: logits, state and gradients."""
    config = Config(version=version, vocab_size=31, num_layers=2, dim=32, head_size=16)
    torch.manual_seed(0)
    model = build(config).to(DEVICE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).to(DEVICE))
    state = used(model, 3)
    tokens = torch.randint(31, (3, 40), device=DEVICE)
    lengths, first = torch.tensor([40, 23, 0], device=DEVICE), torch.zeros(3, 40, dtype=torch.bool, device=DEVICE)
    first[0, 0] = first[0, 17] = first[1, 18] = True
    live = (torch.arange(40, device=DEVICE) < lengths[:, None])[..., None]
    results = []
    for form in ("reference", "triton"):
        model.zero_grad()
        with ops.use(form):
            logits, end = model(tokens, state, lengths, first)
            (logits * live).square().sum().backward()
        results.append([logits * live, end.shift, end.wkv, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 40
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


def test_pytorch_accepts_the_operators() -> None:
    """Schema, shapes without data, autograd and compilation, by PyTorch's own check."""
    from receptance.ops.triton import recurrences

    for op in ("wkv6", "wkv7"):
        *inputs, state = (x.to(DEVICE).requires_grad_() for x in make(op, 2, 20, torch.float32, size=16))
        torch.library.opcheck(recurrences._operator, (inputs, state, None, True))
    mean = [x.to(DEVICE).requires_grad_() for x in make("wkv4", 1, 3, torch.float32, size=4)]
    torch.library.opcheck(recurrences._mean_operator, (*mean, None, True))


@pytest.mark.parametrize("op", ["wkv4", "wkv6", "wkv7"])
def test_views_are_read_like_whole_tensors_and_one_may_be_given_twice(
    op: str, one_part: Callable[[int], None]
) -> None:
    one_part(2)
    inputs = [x.to(DEVICE) for x in make(op, 2, 20, torch.float32, size=32)]
    views = [x.mT.contiguous().mT if x.dim() > 2 else x for x in inputs]
    assert not views[0].is_contiguous()
    for got, want in zip(compute(op, "triton", views, None), compute(op, "triton", inputs, None), strict=True):
        assert torch.equal(got, want)
    if op == "wkv6":
        x = inputs[3].requires_grad_()
        results = []
        for form in ("triton", "reference"):
            with ops.use(form):
                y, _ = ops.wkv6(x, inputs[1], x, x, inputs[4])
            results.append(torch.autograd.grad(y.square().sum(), x)[0])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_what_is_computed_again_is_computed_by_the_form_that_was_asked_for() -> None:
    """In another thread, as PyTorch does on a GPU."""
    seen: list[str | None] = []
    with ops.use("reference"):
        call = ops.remembered(lambda: seen.append(dispatch.asked()))
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == ["reference"] and dispatch.asked() is None


@pytest.mark.cuda
@pytest.mark.skipif(DEVICE == "cpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("op", ["wkv4", "wkv6", "wkv7"])
def test_bfloat16_is_as_good_as_that_of_the_chunked_form(op: str, size: int, packed: bool) -> None:
    inputs = [x.to(torch.bfloat16) for x in make(op, 2, 300, torch.float32, size=size)]
    decay = 0 if op == "wkv4" else 1
    inputs[decay], inputs[-1] = inputs[decay].float(), inputs[-1].float()
    first = boundaries(2, 300) if packed else None
    exact = compute(op, "reference", [x.double() for x in inputs], first)
    on_device = None if first is None else first.to(DEVICE)
    got = moved(lambda x: compute(op, "triton", x, on_device), inputs)
    peer = moved(lambda x: compute(op, "chunked", x, on_device), inputs)
    assert all(torch.isfinite(x).all() for x in peer)
    for value, other, truth in zip(got, peer, exact, strict=True):
        assert relative(value.double(), truth) < max(1e-2, 3 * relative(other.double(), truth))


def test_every_kernel_compiles_for_every_kind_of_gpu() -> None:
    """Without running it, so without a GPU: Triton brings the assemblers."""
    script = Path(__file__).with_name("compile_triton.py")
    done = subprocess.run([sys.executable, script], env=WITHOUT_GPU, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 28 + 2 * 2
    for kernel in found:
        # What a program may have of the memory that its threads share.
        assert kernel["shared"] <= kernel["room"], kernel


def test_the_benchmark_runs_in_small_sizes(tmp_path: Path) -> None:
    """What a GPU is measured by, tried where there is none."""
    script, out = ROOT / "benchmarks" / "gpu.py", tmp_path / "gpu.json"
    command = [sys.executable, script, "--small", "--only", "correctness", "speak", "--out", out]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert all(each["right"] for each in found["correctness"].values())
    assert len(found["speak"]) == 4 and found["speak"][0]["tokens/s"] > 0


def test_dispatch_gives_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "_refusals", [None])
    assert dict(ops.explain("wkv7", 512, "cuda"))["triton"] is None
    assert dict(ops.explain("lerps", 1, "cuda", torch.bfloat16))["triton"] is None
    assert "not in float64" in str(dict(ops.explain("wkv7", 512, "cuda", torch.float64))["triton"])
    assert "not of 8" in str(dict(ops.explain("wkv7", 512, "cuda", size=8))["triton"])
    small = dispatch.choose("wkv7", dispatch.Call(512, "cuda", torch.float32, False, size=8))
    assert small.name == "chunked"
    inputs = make("wkv7", 2, 20, torch.float32, size=8)
    with ops.use("triton"), pytest.raises(InputError, match="heads of 16, 32, 64 and 128, not of 8"):
        ops.wkv7(*inputs)
    with ops.use("triton"), pytest.raises(InputError, match="use the reference form for tensors in float64"):
        ops.wkv7(*make("wkv7", 2, 20))
    monkeypatch.setattr(kernels, "_refusals", [])
    monkeypatch.setattr(kernels.shutil, "which", lambda _: None)
    assert "needs a C compiler once" in str(dict(ops.explain("wkv7", 512, "cuda"))["triton"])
    monkeypatch.setattr(kernels, "_refusals", [])
    monkeypatch.setattr(kernels.shutil, "which", lambda _: "cc")
    monkeypatch.setattr(kernels.sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    assert "Python.h is missing" in str(dict(ops.explain("wkv7", 512, "cuda"))["triton"])
    monkeypatch.setattr(kernels, "_refusals", [])
    monkeypatch.setattr("triton.__version__", "3.3.1")
    assert "need Triton 3.4" in str(dict(ops.explain("wkv7", 512, "cuda"))["triton"])
    monkeypatch.setattr(kernels, "_refusals", [])
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton is not installed" in str(dict(ops.explain("wkv7", 512, "cuda"))["triton"])
