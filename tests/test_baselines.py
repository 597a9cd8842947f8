"""The peers are called with tokens and a state, and whole, cut anywhere or token by token are one function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from receptance.baselines import LSTM, KeyValues, Tape, Transformer, rotary, rotate
from receptance.errors import ConfigError
from receptance.models import num_parameters

MAKERS = {"transformer": lambda: Transformer(17, 3, 32, 4), "lstm": lambda: LSTM(17, 2, 24)}


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return MAKERS[request.param]().double()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(17, (rows, length), generator=torch.Generator().manual_seed(length))


def run_in_pieces(model: Any, text: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, Any]:
    pieces, state = [], None
    for piece in text.split(sizes, 1):
        logits, state = model(piece, state)
        pieces.append(logits)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("sizes", [[1] * 33, [32, 1], [1, 32], [5, 1, 1, 20, 6]], ids=str)
@pytest.mark.parametrize("gradients", [True, False])
def test_whole_equals_pieces(model: Any, sizes: list[int], gradients: bool) -> None:
    text = tokens(2, 33)
    with torch.set_grad_enabled(gradients):
        whole, end = model(text)
        pieces, last = run_in_pieces(model, text, sizes)
        after, _ = model(text[:, :1], end)
        after_pieces, _ = model(text[:, :1], last)
    assert whole.shape == (2, 33, 17)
    assert (whole - pieces).abs().max() < 1e-10
    assert (after - after_pieces).abs().max() < 1e-10


def test_logits_depend_on_the_past_only(model: Any) -> None:
    text = tokens(1, 20)
    changed = text.clone()
    changed[0, 11] = (changed[0, 11] + 1) % 17
    difference = (model(text)[0] - model(changed)[0]).abs().amax(-1)[0]
    assert difference[:11].max() == 0
    assert difference[11:].min() > 0


def test_gradients_through_the_state_equal_those_of_one_forward(model: Any) -> None:
    text = tokens(2, 16)
    gradients = []
    for sizes in ([16], [7, 9]):
        model.zero_grad()
        run_in_pieces(model, text, sizes)[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= 1e-10 * one.abs().max().clamp(min=1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_state_is_a_value_that_can_be_forked(model: Any, mode: Any) -> None:
    text = tokens(2, 40)
    with mode():
        _, state = model(text[:, :30])
        expected, _ = model(text[:, :31])
        first, longer = model(text[:, 30:31], state)
        other, _ = model(text[:, 5:6], state)
        again, _ = model(text[:, 30:31], state)
        beyond, _ = model(text[:, 31:], longer)
        whole, _ = model(text)
    assert torch.equal(first, again)
    assert (other - first).abs().max() > 1e-6
    assert (first[:, 0] - expected[:, 30]).abs().max() < 1e-10
    assert (beyond - whole[:, 31:]).abs().max() < 1e-10


def test_a_state_made_in_inference_mode_serves_outside(model: Any) -> None:
    text = tokens(1, 12)
    with torch.inference_mode():
        _, state = model(text[:, :8])
    with torch.no_grad():
        logits, _ = model(text[:, 8:], state)
        whole, _ = model(text)
    assert (logits - whole[:, 8:]).abs().max() < 1e-10


def test_rows_detach_and_size_of_a_state(model: Any) -> None:
    text = tokens(3, 10)
    _, state = model(text)
    with torch.no_grad():
        picked, _ = model(text[[2, 0], :1], state.rows([2, 0]))
        all_rows, _ = model(text[:, :1], state)
    assert (picked - all_rows[[2, 0]]).abs().max() < 1e-10
    logits, _ = model(text[:, :1], state.detach())
    model.zero_grad()
    logits.sum().backward()
    assert state.rows([0]).num_bytes * 3 == state.num_bytes > 0


def test_a_tape_writes_in_place_and_copies_only_when_it_must() -> None:
    with torch.no_grad():
        tape = Tape.holding(torch.zeros(1, 0, 2))
        one = tape.append(torch.ones(1, 3, 2))
        two = one.append(2 * torch.ones(1, 1, 2))
        assert two.tensor.data_ptr() == one.tensor.data_ptr()
        fork = one.append(3 * torch.ones(1, 1, 2))
        assert fork.tensor.data_ptr() != one.tensor.data_ptr()
        assert two.tensor[0, :, 0].tolist() == [1, 1, 1, 2]
        assert fork.tensor[0, :, 0].tolist() == [1, 1, 1, 3]
        many, moves, place = two, 0, two.tensor.data_ptr()
        for _ in range(1000):
            many = many.append(torch.zeros(1, 1, 2))
            moves += many.tensor.data_ptr() != place
            place = many.tensor.data_ptr()
        assert many.length == 1004 and moves <= 5


def test_a_random_cache_is_as_large_as_a_real_one() -> None:
    model = Transformer(17, 3, 32, 4)
    with torch.no_grad():
        _, real = model(tokens(2, 50))
        made = KeyValues.random(model, 2, 50, spare=4)
        assert made.num_bytes == real.num_bytes and made.length == 50
        place = made.layers[0].tensor.data_ptr()
        logits, longer = model(tokens(2, 4), made)
    assert longer.layers[0].tensor.data_ptr() == place and longer.length == 54
    assert logits.isfinite().all()


def test_rotary_positions_are_relative_and_not_ignored() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def score(at: int, seen: int) -> torch.Tensor:
        turned = (rotate(x, *rotary(place, 1, 16, like=x)) for x, place in ((query, at), (key, seen)))
        return (next(turned) * next(turned)).sum()

    assert (score(7, 3) - score(100_007, 100_003)).abs() < 1e-9
    assert (score(7, 3) - score(7, 4)).abs() > 1e-3


@pytest.mark.parametrize("version", ["4", "6", "7"])
@pytest.mark.parametrize("kind", [Transformer, LSTM])
def test_like_chooses_about_as_many_parameters(kind: Any, version: str) -> None:
    wanted = 2_200_000
    config = SimpleNamespace(vocab_size=256, num_layers=4, dim=192, num_heads=0 if version == "4" else 3)
    rwkv = nn.Linear(wanted // 1000, 1000, bias=False)
    rwkv.config = config  # type: ignore[assignment]
    peer = kind.like(rwkv)
    assert abs(num_parameters(peer) / wanted - 1) < 0.02


def test_every_parameter_is_in_one_group(model: Any) -> None:
    groups = model.param_groups(lr=0.1, weight_decay=0.2)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.2}
    torch.optim.AdamW(groups)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="multiple of 10"):
        Transformer(17, 1, 32, 5)
