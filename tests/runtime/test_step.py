"""The compiled step against the model file, for every generation and weight format."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from receptance import Config, InputError, State, runtime
from receptance.config import VERSIONS
from receptance.errors import CompileError, StateError
from receptance.models import RWKV
from receptance.quant import quantize
from tests.models.cases import CONFIGS, noisy, used

# Wide enough for groups of 32; heads of 16.
WIDE = {
    version: Config(version=version, vocab_size=31, num_layers=2, dim=64, head_size=64 if version == "4" else 16)
    for version in VERSIONS
}
WIDE |= {name: config for name, config in CONFIGS.items() if name not in VERSIONS}
FORMATS = ("float32", "bfloat16", "int8", "int4")


def model_in(config: Config, weights: str) -> RWKV:
    """A noisy float32 model whose weights are what a format can hold."""
    model = noisy(config)
    if weights == "bfloat16":
        return model.bfloat16()
    return model if weights == "float32" else quantize(model, weights)


def tokens_for(model: RWKV, length: int, rows: int) -> Tensor:
    """Random tokens [length, rows], always the same; PyTorch's own generator is shared by all threads."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.vocab_size, (length, 40), generator=generator)[:, :rows]


def follow(model: RWKV, step: runtime.Step, slots: list[int], length: int = 5) -> tuple[list[Tensor], State]:
    """Logits [B, V] of each of some random tokens, and the state at the end, by the step."""
    return [step(row, slots).clone() for row in tokens_for(model, length, len(slots))], step.read(slots)


def by_model(model: RWKV, state: State, length: int = 5) -> tuple[list[Tensor], State]:
    """The same by the model file."""
    logits = []
    with torch.no_grad():
        for row in tokens_for(model, length, state.num_rows):
            given, state = model(row[:, None], state)
            logits.append(given[:, 0])
    return logits, state


def gap(got: Tensor, want: Tensor) -> float:
    return ((got - want).abs().max() / want.std()).item()


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("name", WIDE)
def test_the_step_computes_what_the_model_file_does(name: str, weights: str) -> None:
    model = model_in(WIDE[name], weights)
    step = runtime.compile(model, slots=4)
    state = used(model, 3)
    step.write([3, 0, 2], state)
    got, end = follow(model, step, [3, 0, 2])
    # The step keeps its activations in float32, so its peer is the same weights in a float32 model.
    want, truth = by_model(model.float(), state.to(dtype=torch.float32))
    # A number that lies between two integers may be rounded to the other one: rarely, and then it shows.
    bound = {"float32": 1e-5, "bfloat16": 4e-4}.get(weights, 0.05)
    gaps = [gap(g, w) for g, w in zip(got, want, strict=True)]
    assert max(gaps) < bound
    assert sorted(gaps)[len(gaps) // 2] < max(1e-5, bound / 4)
    assert gap(end.wkv, truth.wkv) < bound
    assert gap(end.shift.float(), truth.shift) < (bound if weights != "bfloat16" else 0.02)


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("name", ["4", "5.2", "6", "7"])
def test_a_row_is_the_same_to_the_bit_in_any_crowd(name: str, weights: str) -> None:
    model = model_in(WIDE[name], weights)
    state = used(model, 32)
    alone: dict[int, list[Tensor]] = {}
    for num_rows in (1, 7, 32):
        step = runtime.compile(model, slots=num_rows)
        step.write(range(num_rows), state.rows(range(num_rows)))
        got, _ = follow(model, step, list(range(num_rows)))
        for row in (0, 6, 31):
            if row < num_rows:
                mine = [logits[row] for logits in got]
                before = alone.setdefault(row, mine)
                assert all(torch.equal(g, w) for g, w in zip(mine, before, strict=True)), (num_rows, row)


@pytest.mark.parametrize("weights", FORMATS)
def test_skipping_zeros_changes_no_bit(weights: str) -> None:
    model = model_in(WIDE["7"], weights)
    with_skip, without = (runtime.compile(model, slots=2, skip=skip) for skip in (True, False))
    for got, want in zip(follow(model, with_skip, [0, 1])[0], follow(model, without, [0, 1])[0], strict=True):
        assert torch.equal(got, want)


def test_other_slots_are_left_alone() -> None:
    model = noisy(WIDE["7"])
    step = runtime.compile(model, slots=3)
    step.write([0, 1, 2], used(model, 3))
    before = step.read([0, 2])
    step(torch.tensor([5]), [1])
    after = step.read([0, 2])
    assert torch.equal(after.wkv, before.wkv)
    assert torch.equal(after.shift, before.shift)


def test_trained_weights_are_seen() -> None:
    model = noisy(WIDE["7"])
    first = runtime.compile(model)(torch.tensor([3])).clone()
    with torch.no_grad():
        model.blocks[0].ffn.value.weight.mul_(1.5)
    second = runtime.compile(model)(torch.tensor([3])).clone()
    want, _ = model(torch.tensor([[3]]))
    assert gap(second, want[:, 0]) < 1e-5
    assert gap(first, want[:, 0]) > 1e-3


def test_two_models_in_two_threads() -> None:
    models = [noisy(WIDE["6"]), noisy(WIDE["7"])]
    got: list[Any] = [None, None]

    def decode(number: int) -> None:
        step = runtime.compile(models[number], slots=2)
        for _ in range(20):
            step.write([0, 1], models[number].zero_state(2))
            got[number], _ = follow(models[number], step, [0, 1])

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model, logits in zip(models, got, strict=True):
        want, _ = by_model(model, model.zero_state(2))
        assert max(gap(g, w) for g, w in zip(logits, want, strict=True)) < 1e-5


@pytest.mark.parametrize(
    ("tokens", "slots", "sentence"),
    [
        (torch.tensor([31]), [0], "tokens must lie between 0 and 30"),
        (torch.tensor([-1]), [0], "tokens must lie between 0 and 30"),
        (torch.tensor([1, 2]), [0, 0], "slots must be different numbers between 0 and 1"),
        (torch.tensor([1]), [2], "slots must be different numbers between 0 and 1"),
        (torch.tensor([1, 2]), [0], "one for each slot"),
        (torch.tensor([1], dtype=torch.int32), [0], "must be int64"),
        (torch.tensor([[1]]), [0], "must be int64"),
    ],
)
def test_bad_calls_are_one_sentence(tokens: Tensor, slots: list[int], sentence: str) -> None:
    step = runtime.compile(noisy(CONFIGS["7"]), slots=2)
    with pytest.raises(InputError, match=sentence):
        step(tokens, slots)


def test_a_state_of_another_model_is_refused() -> None:
    step = runtime.compile(noisy(CONFIGS["7"]), slots=2)
    with pytest.raises(StateError, match="does not fit"):
        step.write([0], noisy(CONFIGS["6"].replace(dim=24)).zero_state(1))


class Odd(nn.Module):
    """Something that the step has no instruction for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, -1)


def test_refusals_are_sentences_and_the_model_still_serves() -> None:
    model = noisy(CONFIGS["7"])
    assert runtime.refusal(model) is None
    assert "float64" in str(runtime.refusal(noisy(CONFIGS["7"], torch.float64)))
    model.blocks[1].ffn.key = Odd()
    with pytest.raises(CompileError, match="does not know cumsum"):
        runtime.compile(model)
    assert "does not know cumsum" in str(runtime.refusal(model))
