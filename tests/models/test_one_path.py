"""One function for every length and batch: whole = cut anywhere = token by token = ragged = packed, with gradients."""

from __future__ import annotations

import copy
import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from receptance import RWKV, ReceptanceError, State
from tests.ops.cases import relative

from .cases import CONFIGS, small, used

LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 1000)
BOUND = 1e-10
BOUND_32 = 2e-5


def walk(model: RWKV, tokens: Tensor, cuts: list[int], state: State | None) -> tuple[Tensor, State]:
    """Read `tokens` in pieces, the state carried."""
    pieces = []
    for start, end in pairwise([0, *cuts, tokens.shape[1]]):
        logits, state = model(tokens[:, start:end], state)
        pieces.append(logits)
    assert state is not None
    return torch.cat(pieces, 1), state


def assert_same(got: tuple[Tensor, State], want: tuple[Tensor, State]) -> None:
    assert relative(got[0], want[0]) < BOUND
    for value, truth in zip(got[1], want[1], strict=True):
        assert relative(value, truth) < BOUND


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_any_cut(name: str, length: int) -> None:
    model = small(name)
    start = used(model, 2)
    tokens = torch.randint(31, (2, length))
    whole = model(tokens, start)
    random.seed(length)
    places = list(range(1, length))
    for _ in range(2):
        cuts = sorted(random.sample(places, min(4, len(places))))
        assert_same(walk(model, tokens, cuts, start), whole)
    if length <= 65:
        assert_same(walk(model, tokens, places, start), whole)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_ragged_rows(name: str) -> None:
    model = small(name)
    lengths = torch.tensor([65, 0, 1, 16, 64, 17])
    start, tokens = used(model, 6), torch.randint(31, (6, 65))
    for state in (start, None):
        logits, end = model(tokens, state, lengths=lengths)
        for i, length in enumerate(lengths.tolist()):
            row = (model.zero_state(6) if state is None else state).rows([i])
            if length == 0:
                assert all(torch.equal(a, b) for a, b in zip(end.rows([i]), row, strict=True))
            else:
                alone = model(tokens[i : i + 1, :length], row)
                assert_same((logits[i : i + 1, :length], end.rows([i])), alone)


DOCUMENTS = ([0, 31, 32, 33, 64, 90], [], [1], [5, 6, 7, 8, 99], list(range(100)))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_packed_documents(name: str) -> None:
    """Each document of a packed row as if it were alone; what comes before the first goes on from the state."""
    model = small(name)
    start, tokens = used(model, len(DOCUMENTS)), torch.randint(31, (len(DOCUMENTS), 100))
    first = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, places in enumerate(DOCUMENTS):
        first[i, places] = True
    logits, end = model(tokens, start, first=first)
    for i, places in enumerate(DOCUMENTS):
        state: State | None = start.rows([i])
        for begin, stop in pairwise(sorted({0, *places, 100})):
            alone = model(tokens[i : i + 1, begin:stop], None if begin in places else state)
            assert relative(logits[i : i + 1, begin:stop], alone[0]) < BOUND
            state = alone[1]
        assert state is not None
        assert all(relative(a, b) < BOUND for a, b in zip(end.rows([i]), state, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_packed_and_ragged_together(name: str) -> None:
    model = small(name)
    tokens, start = torch.randint(31, (2, 50)), used(model, 2)
    first = torch.zeros(2, 50, dtype=torch.bool)
    first[0, 20] = first[1, 3] = first[1, 45] = True  # the last one lies in the padding
    logits, end = model(tokens, start, lengths=torch.tensor([50, 33]), first=first)
    alone = model(tokens[1:, 3:33])
    assert_same((logits[1:, 3:33], State(end.shift[:, :, 1:], end.wkv[:, 1:])), alone)


def gradients(model: RWKV, logits: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(11)
    loss = (torch.log_softmax(logits, -1) * torch.randn(logits.shape, dtype=logits.dtype)).sum()
    grads = torch.autograd.grad(loss, [*model.parameters(), *leaves], allow_unused=True)
    return [torch.zeros(1, dtype=logits.dtype) if g is None else g for g in grads]


@pytest.mark.parametrize("length", (2, 17, 64, 65))
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_cuts_and_to_the_initial_state(name: str, length: int) -> None:
    model = small(name)
    start = State(*(t.requires_grad_() for t in used(model, 2)))
    tokens = torch.randint(31, (2, length))
    want = gradients(model, model(tokens, start)[0], [*start])
    cuts = sorted({1, length // 2})
    got = gradients(model, walk(model, tokens, cuts, start)[0], [*start])
    for value, truth in zip(got, want, strict=True):
        # A gradient that is zero but for rounding (the scale of RWKV-4's state) is compared with the others' size.
        scale = truth.abs().max().clamp_min(1e-3)
        assert ((value - truth).abs().max() / scale).item() < BOUND
    assert want[-1].abs().max() > 0, "no gradient reaches the state"


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_ragged_and_packed_rows_are_those_of_the_documents_alone(name: str) -> None:
    model = small(name)
    tokens = torch.randint(31, (3, 40))
    first = torch.zeros(3, 40, dtype=torch.bool)
    first[0, [0, 13, 14]] = True
    lengths = torch.tensor([40, 0, 9])  # row 1 is padding that meets an empty state
    live = torch.arange(40) < lengths[:, None]
    logits = model(tokens, lengths=lengths, first=first)[0]
    parameters = list(model.parameters())
    weights = torch.randn(3, 40, 31, dtype=torch.float64) * live[..., None]
    got = torch.autograd.grad((logits * weights).masked_fill(~live[..., None], 0).sum(), parameters)
    pieces = [(0, 0, 13), (0, 13, 14), (0, 14, 40), (2, 0, 9)]
    loss = sum((model(tokens[i : i + 1, a:b])[0] * weights[i : i + 1, a:b]).sum() for i, a, b in pieces)
    want = torch.autograd.grad(loss, parameters)
    assert max(relative(g, w) for g, w in zip(got, want, strict=True)) < BOUND


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_bfloat16_model_keeps_its_state_in_float32(name: str) -> None:
    model = small(name, torch.bfloat16)
    tokens = torch.randint(31, (2, 50))
    logits, state = model(tokens)
    assert (logits.dtype, state.shift.dtype, state.wkv.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    stepped, _ = walk(model, tokens, list(range(1, 50)), None)
    exact = model.double()(tokens)[0]
    loop_error = (stepped.double() - exact).abs().mean()
    assert (logits.double() - exact).abs().mean() < 1.5 * loop_error + 1e-3


@pytest.mark.parametrize("length", (1, 17, 65))
@pytest.mark.parametrize("name", CONFIGS)
def test_one_path_in_float32(name: str, length: int) -> None:
    """The kernels that compute in float32 only: whole = cut = ragged, and the gradients are those in float64."""
    model = small(name, torch.float32)
    exact = copy.deepcopy(model).double()
    tokens, weights = torch.randint(31, (2, length)), torch.randn(2, length, 31)
    want = exact(tokens)[0]
    whole, end = model(tokens)
    assert relative(whole.double(), want) < BOUND_32
    with torch.no_grad():
        stepped, state = walk(model, tokens, list(range(1, length)), None)
        assert relative(stepped, whole) < BOUND_32
        assert all(relative(x, y) < BOUND_32 for x, y in zip(state, end, strict=True))
        ragged, _ = model(tokens, lengths=torch.tensor([length, length // 2]))
        assert relative(ragged[0], whole[0]) < BOUND_32
        assert length == 1 or relative(ragged[1, : length // 2], whole[1, : length // 2]) < BOUND_32
    got = torch.autograd.grad((whole * weights).sum(), list(model.parameters()), allow_unused=True)
    right = torch.autograd.grad((want * weights).sum(), list(exact.parameters()), allow_unused=True)
    for value, truth in zip(got, right, strict=True):
        # What has no influence on one token has no gradient, or zeros.
        if truth is None or truth.abs().max() < 1e-6:
            assert value is None or value.abs().max() < 1e-5
        else:
            assert value is not None and relative(value.double(), truth) < 20 * BOUND_32


@torch.no_grad()
def test_the_recurrence_is_as_wide_as_the_model() -> None:
    """A float32 state in a float64 model, as a tuned one is, does not make the recurrence float32."""
    model = small("7")
    state = model.zero_state(1).to(dtype=torch.float32)
    tokens = torch.randint(31, (1, 9))
    assert model(tokens, state)[1].wkv.dtype == torch.float64
    assert relative(model(tokens, state)[0], model(tokens)[0]) == 0


def test_wrong_calls_are_one_sentence() -> None:
    model = small("7")
    tokens = torch.randint(31, (2, 5))
    for bad, message in (
        (lambda: model(tokens[:, :0]), "T >= 1"),
        (lambda: model(tokens[:0]), "B and T >= 1"),
        (lambda: model([[1, 2]]), "must be a tensor, got a list"),
        (lambda: model(tokens.bool()), "must be int64"),
        (lambda: model(tokens, tuple(model.zero_state(2))), "must be a State, got a tuple"),
        (lambda: model(tokens, State(*(x.long() for x in model.zero_state(2)))), "real numbers"),
        (lambda: model(tokens[0]), r"\[B, T\]"),
        (lambda: model(tokens.float()), "must be int64"),
        (lambda: model(tokens + 31), "between 0 and 30"),
        (lambda: model(tokens - 31), "between 0 and 30"),
        (lambda: model(tokens, lengths=torch.tensor([6, 1])), "between 0 and 5"),
        (lambda: model(tokens, lengths=torch.tensor([-1, 1])), "between 0 and 5"),
        (lambda: model(tokens, lengths=torch.tensor([1.0, 1.0])), "one a row"),
        (lambda: model(tokens, lengths=torch.tensor([1])), "one a row"),
        (lambda: model(tokens, first=torch.zeros(2, 5)), "must be bool"),
        (lambda: model(tokens, model.zero_state(3)), "does not fit"),
    ):
        with pytest.raises(ReceptanceError, match=message) as caught:
            bad()
        assert "\n" not in str(caught.value)
