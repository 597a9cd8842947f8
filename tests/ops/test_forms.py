"""Every form of every op against the time loop: values, states and gradients, at odd lengths, packed and ragged."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from receptance import ops
from receptance.errors import InputError
from receptance.ops import cpu, dispatch

from .cases import BOUND_7, boundaries, make, relative

RECURRENCES = ("wkv4", "wkv6", "wkv7")
# The forms in Triton are tested by themselves, in test_triton.py.
ABSENT = {"triton"} if cpu.refusal() is None else {"triton", "numba"}
PRESENT = {op: [form for form in ops.forms(op) if form not in ABSENT] for op in ops.OPS}
FAST_FORMS = [(op, form) for op in RECURRENCES for form in PRESENT[op] if form != "reference"]
# What has a form in Numba is computed by it in float32 only.
FLOAT64_FORMS = [(op, form) for op, form in FAST_FORMS if form != "numba"]
LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 130)


def compute(op: str, form: str, inputs: list[Tensor], first: Tensor | None) -> list[Tensor]:
    """y, the state, and the gradients of all inputs for a loss that weighs both."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    with ops.use(form):
        y, state = ops.OPS[op](*inputs, first)
    torch.manual_seed(7)
    # wkv4's running maximum is the scale of the other two, and -1e30 where nothing was read: compared as a value below.
    graded = state[:, :2] if op == "wkv4" else state
    # Not `randn_like`: it fills memory in order, and the forms lay their results out differently.
    # And drawn in float64 for every dtype, which else has random numbers of its own.
    loss = sum((x * torch.randn(x.shape, dtype=torch.float64).to(x)).sum() for x in (y, graded))
    return [y.detach(), state.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("op", "form"), FLOAT64_FORMS)
def test_form_equals_reference_in_float64(op: str, form: str, length: int, packed: bool) -> None:
    inputs = make(op, 3, length)
    first = boundaries(3, length) if packed else None
    want, got = compute(op, "reference", inputs, first), compute(op, form, inputs, first)
    assert max(relative(g, w) for g, w in zip(got, want, strict=True)) < 1e-11


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("op", "form"), FAST_FORMS)
def test_form_in_float32_is_as_good_as_the_reference(op: str, form: str, length: int, packed: bool) -> None:
    """Both against float64 on the same rounded inputs: values, states and gradients."""
    inputs = make(op, 3, length, torch.float32)
    first = boundaries(3, length) if packed else None
    exact = compute(op, "reference", [x.double() for x in inputs], first)
    got, loop = compute(op, form, inputs, first), compute(op, "reference", inputs, first)
    for value, peer, truth in zip(got, loop, exact, strict=True):
        assert relative(value.double(), truth) < max(1e-6, 3 * relative(peer.double(), truth))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strength", ["weak", "strong"])
@pytest.mark.parametrize(("op", "form"), FAST_FORMS)
def test_extreme_decays_in_low_precision(op: str, form: str, strength: str, dtype: torch.dtype) -> None:
    """Against float64 on the same rounded inputs, beside the loop's own error; y and state of 257 tokens."""
    inputs = make(op, 2, 257)
    log_w = inputs[0] if op == "wkv4" else inputs[1]
    strongest = BOUND_7 if op == "wkv7" else 1000.0
    log_w.fill_(-1e-7 if strength == "weak" else -strongest)
    low = [x.to(dtype) for x in inputs[:-1]] + [inputs[-1].float()]
    exact = compute(op, "reference", [x.double() for x in low], None)
    got, loop = compute(op, form, low, None), compute(op, "reference", low, None)
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for name, value, peer, truth in zip(("y", "state"), got, loop, exact, strict=False):
        assert relative(value.double(), truth) < max(bound, 3 * relative(peer.double(), truth)), name
    gradient_bound = 1e-4 if dtype == torch.float32 else 3e-2
    for value, peer, truth in zip(got[2:], loop[2:], exact[2:], strict=True):
        # Where the decay is strongest, its gradient is a number that float32 cannot hold: both forms give 0.
        if truth.abs().max() > 1e-30:
            assert relative(value.double(), truth) < max(gradient_bound, 3 * relative(peer.double(), truth))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("op", "form"), FAST_FORMS)
def test_long_sequences_stay_finite_and_right(op: str, form: str, dtype: torch.dtype) -> None:
    inputs = make(op, 1, 8192, heads=1)
    low = [x.to(dtype) for x in inputs[:-1]] + [inputs[-1].float()]
    got = compute(op, form, low, None)
    assert all(torch.isfinite(x).all() for x in got)
    with torch.no_grad(), ops.use("reference"):
        y, state = ops.OPS[op](*(x.double() for x in low))
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    assert relative(got[0].double(), y) < bound
    assert relative(got[1].double(), state) < bound


@pytest.mark.parametrize(("op", "form"), [(op, form) for op in RECURRENCES for form in PRESENT[op]])
def test_autocast_does_not_reach_the_recurrence(op: str, form: str) -> None:
    inputs = make(op, 2, 40, torch.float32)
    with ops.use(form):
        want = ops.OPS[op](*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            got = ops.OPS[op](*inputs)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_an_ended_row_leaves_the_state_alone_bit_for_bit() -> None:
    for op in RECURRENCES:
        inputs = make(op, 2, 40, torch.float32)
        if op == "wkv4":
            inputs[0].zero_()
            inputs[2].fill_(-torch.inf)
        else:
            for held in (1, 2) if op == "wkv6" else (1, 2, 5):
                inputs[held].zero_()
        for form in PRESENT[op]:
            with ops.use(form):
                y, state = ops.OPS[op](*inputs)
            assert torch.equal(state, inputs[-1]), (op, form)
            assert torch.isfinite(y).all(), (op, form)


def test_padding_that_meets_an_empty_state_has_finite_gradients() -> None:
    log_w, u, k, v, state = make("wkv4", 2, 20)
    log_w[1], k[1] = 0, -torch.inf  # row 1 starts empty and has no token
    for form in PRESENT["wkv4"]:
        dtype = torch.float32 if form == "numba" else torch.float64
        got = compute("wkv4", form, [x.to(dtype) for x in (log_w, u, k, v, state)], None)
        assert all(torch.isfinite(x).all() for x in got), form
        assert (got[0][1] == 0).all()


@pytest.mark.parametrize("op", RECURRENCES)
def test_no_input_is_changed_and_no_memory_is_shared(op: str) -> None:
    for form in PRESENT[op]:
        inputs = make(op, 2, 19, torch.float32)
        before = [x.clone() for x in inputs]
        with ops.use(form):
            y, state = ops.OPS[op](*inputs)
        assert all(torch.equal(x, old) for x, old in zip(inputs, before, strict=True)), form
        storages = {x.untyped_storage().data_ptr() for x in inputs}
        assert y.untyped_storage().data_ptr() not in storages
        assert state.untyped_storage().data_ptr() not in storages


@pytest.mark.parametrize("form", ops.forms("token_shift"))
def test_token_shift(form: str) -> None:
    x, last = torch.randn(3, 5, 2), torch.randn(3, 2)
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[0, 0] = first[1, 2] = first[1, 3] = True
    lengths = torch.tensor([5, 2, 0])
    with ops.use(form):
        prev, end = ops.token_shift(x, last, lengths, first)
    for b in range(3):
        for t in range(5):
            want = torch.zeros(2) if first[b, t] else last[b] if t == 0 else x[b, t - 1]
            assert torch.equal(prev[b, t], want)
        assert torch.equal(end[b], last[b] if lengths[b] == 0 else x[b, lengths[b] - 1])


def test_dispatch_gives_reasons() -> None:
    refusal = cpu.refusal()
    reasons = dict(ops.explain("wkv7", length=512))
    assert reasons.pop("triton") == "its kernels are for GPUs, not for cpu"
    if refusal is None:
        assert reasons == {"numba": None, "chunked": "numba comes first", "reference": "numba comes first"}
    else:
        assert reasons == {"numba": refusal, "chunked": None, "reference": "chunked comes first"}
    wide = dict(ops.explain("wkv7", length=512, dtype=torch.float64))
    assert wide["chunked"] is None
    assert "not in float64" in str(wide["numba"])
    short = dict(ops.explain("wkv7", length=1, dtype=torch.float64))
    assert short["reference"] is None
    assert "time loop is faster" in str(short["chunked"])
    serving = dispatch.choose("wkv6", dispatch.Call(512, "cpu", torch.float32, False)).name
    with ops.use("reference"):
        assert dict(ops.explain("wkv7", length=512))["chunked"] == "reference was asked for"
        with ops.use("chunked"):
            assert dispatch.choose("wkv6", dispatch.Call(1, "cpu", torch.float32, False)).name == "chunked"
        assert dispatch.choose("wkv6", dispatch.Call(512, "cpu", torch.float32, False)).name == "reference"
        seen: list[str] = []
        elsewhere = threading.Thread(
            target=lambda: seen.append(dispatch.choose("wkv6", dispatch.Call(512, "cpu", torch.float32, False)).name)
        )
        elsewhere.start()
        elsewhere.join()
        assert seen == [serving], "another thread is not asked"
    with pytest.raises(InputError, match="no op has a form called 'fortran'"), ops.use("fortran"):
        pass


def test_wrong_shapes_are_one_sentence() -> None:
    r, log_w, k, v, a, b, state = make("wkv7", 2, 9)
    with pytest.raises(InputError, match=r"one shape, got .*k \[2, 8, 2, 8\]"):
        ops.wkv7(r, log_w, k[:, 1:], v, a, b, state)
    with pytest.raises(InputError, match="state"):
        ops.wkv7(r, log_w, k, v, a, b, state[:1])
    with pytest.raises(InputError, match="marks tokens"):
        ops.wkv7(r, log_w, k, v, a, b, state, torch.zeros(2, 8, dtype=torch.bool))
    with pytest.raises(InputError, match="last must be"):
        ops.token_shift(r.flatten(2), torch.zeros(2, 3))
