"""The loop: it learns, keeps its budget, survives bad gradients and Ctrl-C, and is repeatable."""

from __future__ import annotations

import io
import logging
import math
import re
import signal
import threading
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import receptance
from receptance.baselines import LSTM, Transformer
from receptance.config import Config
from receptance.data import Tokens
from receptance.errors import CheckpointError, DataError, TrainingError
from receptance.models import build
from receptance.training import (
    Batching,
    Compute,
    Learner,
    LiveProgress,
    Optim,
    Ranks,
    Schedule,
    Step,
    Trainer,
    Training,
    bits,
    mean_loss,
)
from receptance.training.validation import Measuring

SYMBOLS = 16


def markov_text(length: int, seed: int) -> Tokens:
    """Every symbol is followed by one of three others with shares 1/2, 1/4, 1/4: 1.5 bits a symbol, no less."""
    generator = torch.Generator().manual_seed(0)
    followers = torch.stack([torch.randperm(SYMBOLS, generator=generator)[:3] for _ in range(SYMBOLS)]).tolist()
    choices = torch.multinomial(
        torch.tensor([0.5, 0.25, 0.25]), length, replacement=True, generator=generator.manual_seed(seed)
    )
    text, symbol = bytearray(), 0
    for choice in choices.tolist():
        symbol = followers[symbol][choice]
        text.append(symbol)
    return Tokens.of([np.frombuffer(text, np.uint8)])


def small_lstm() -> LSTM:
    torch.manual_seed(0)
    return LSTM(SYMBOLS, 1, 16)


def small_rwkv(version: str = "7") -> Any:
    torch.manual_seed(0)
    return build(Config(version=version, vocab_size=SYMBOLS, num_layers=2, dim=32, head_size=16))


def recipe(**changes: Any) -> Training:
    """A training of ten steps; `changes` are values of any section, by their own names."""
    sections: dict[str, Any] = {}
    values = {"warmup_steps": 2, "end": 0.1, "lr": 1e-2, "rows": 4, "length": 16, "order": "random"}
    values |= {"precision": "float32", "tokens": 640} | changes
    for name, value in values.items():
        kind = next(kind for kind in (Batching, Optim, Schedule, Compute) if name in kind.model_fields)
        if value is not None:
            sections.setdefault({"schedule": "schedule"}.get(kind.section, kind.section), {})[name] = value
    return Training(**sections)


TEXT = markov_text(20_000, seed=1)


LEARNERS: dict[str, Any] = {
    "rwkv-4": lambda: small_rwkv("4"),
    "rwkv-5.2": lambda: small_rwkv("5.2"),
    "rwkv-6": lambda: small_rwkv("6"),
    "rwkv-7": lambda: small_rwkv("7"),
    "transformer": lambda: Transformer(SYMBOLS, 2, 32, 2),
    "lstm": lambda: LSTM(SYMBOLS, 1, 48),
}


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "float32") for name in LEARNERS), ("rwkv-7", "bfloat16")], ids=str
)
def test_it_learns_a_source_down_to_its_entropy_and_no_further(name: str, precision: str) -> None:
    """1.5 bits is what the source holds: clearly less would mean that the model sees what it should predict."""
    model = LEARNERS[name]()
    plan = recipe(tokens=80 * 16 * 32, rows=16, length=32, precision=precision)
    outcome = Trainer(model, TEXT, plan).train()
    assert bits(outcome.steps[0].loss) > 3.9
    assert 1.45 < bits(mean_loss(model, markov_text(8_000, seed=2), length=100)) < 1.6
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_token_budget_is_kept_to_the_step_and_the_rate_follows_it() -> None:
    outcome = Trainer(small_lstm(), TEXT, recipe(tokens=10 * 64)).train()
    assert [step.tokens for step in outcome.steps] == [64 * n for n in range(1, 11)]
    assert not outcome.interrupted and outcome.num_skipped == 0
    schedule = Schedule(steps=10, warmup_steps=2)
    expected = [1e-2 * schedule.factor(n, (n - 2) / (10 - 2), 0.0) for n in range(10)]
    assert [step.learning_rate for step in outcome.steps] == pytest.approx(expected)


def test_a_time_budget_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    clock = SimpleNamespace(perf_counter=lambda: 0.01 * next(ticks))
    monkeypatch.setattr("receptance.training.trainer.time", clock)
    outcome = Trainer(small_lstm(), TEXT, recipe(tokens=None, seconds=0.3)).train()
    assert len(outcome.steps) in (30, 31), "a step takes a tick"
    assert outcome.steps[-2].share < 1 <= outcome.steps[-1].share
    assert outcome.steps[-1].learning_rate < 2e-3


def test_the_same_seed_gives_the_same_model() -> None:
    def train(seed: int) -> torch.Tensor:
        model = small_lstm()
        Trainer(model, TEXT, recipe(seed=seed)).train()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_groups_keep_their_multiple_of_the_rate() -> None:
    model = small_rwkv()
    trainer = Trainer(model, TEXT, recipe())
    trainer.train()
    multiples = {group["lr_multiple"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert len(multiples) == 2
    assert multiples[2.0] == 2 * multiples[1.0] == 2 * trainer.steps[-1].learning_rate


def test_a_tiny_gradient_still_moves_a_parameter_by_the_rate() -> None:
    model = small_lstm()
    trainer = Trainer(model, TEXT, recipe(weight_decay=0.0))
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-13)
    trainer.optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.allclose(old - new, torch.full_like(old, 1e-2), rtol=1e-3)


def test_the_gradient_is_clipped() -> None:
    model = small_lstm()
    norms = []
    plan = recipe(clip=1e-3, tokens=64)
    trainer = Trainer(model, TEXT, plan)
    trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())))
    )
    trainer.train()
    assert norms == pytest.approx([1e-3], rel=1e-3)


class Poisoned(LSTM):
    """Gives NaN features at the calls listed in `poison`."""

    def __init__(self, poison: set[int]) -> None:
        super().__init__(SYMBOLS, 1, 16)
        self.poison, self.calls = poison, 0

    def features(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        x, state = super().features(tokens, state)
        self.calls += 1
        return (x * math.nan if self.calls - 1 in self.poison else x), state


def test_a_step_that_is_not_finite_is_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = Poisoned({0, 3})
    seen: list[torch.Tensor] = []
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(model, TEXT, recipe(), lambda step: seen.append(model.head.weight.detach().clone()))
        outcome = trainer.train()
    assert [step.number for step in outcome.steps if step.skipped] == [0, 3]
    assert torch.equal(seen[2], seen[3]) and not torch.equal(seen[3], seen[4])
    assert all(p.isfinite().all() for p in model.parameters())
    assert math.isfinite(outcome.steps[-1].smooth_loss)
    assert outcome.num_skipped == 2 and "is not finite" in outcome.steps[0].skipped
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["step 0 skipped", "step 3 skipped"]


def test_a_training_that_never_becomes_finite_stops() -> None:
    model = Poisoned(set(range(10_000)))
    trainer = Trainer(model, TEXT, recipe(tokens=10**9))
    with pytest.raises(TrainingError, match=r"50 steps .* is not finite; .*lower the learning rate \(it is 0\.01\)"):
        trainer.train()
    assert len(trainer.steps) == 50 and not model.training


def test_what_was_learned_before_a_training_broke_is_saved(tmp_path: Path) -> None:
    model, path = small_rwkv(), tmp_path / "model.pth"
    learned: dict[str, torch.Tensor] = {}

    def break_after_ten(step: Step) -> None:
        if step.number == 9:
            learned.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
            model.head.register_forward_hook(lambda module, inputs, logits: logits * math.nan)

    with pytest.raises(TrainingError, match=f"what was learned before that is in {path}"):
        Trainer(model, TEXT, recipe(tokens=10**9), break_after_ten).train(save_to=path)
    saved = receptance.load(path).model.state_dict()
    assert learned and all(torch.equal(saved[name], tensor) for name, tensor in learned.items())


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (small_rwkv, "model.onnx", "choose a name ending in .pth"),
        (small_rwkv, "file.pth/deeper/model.pth", "no folder that can be written to"),
        (lambda: small_rwkv("5.2"), "folder", "no Hugging Face folder holds RWKV-5.2"),
        (small_lstm, "model.pth", "a model of the kind LSTM, only an RWKV; leave save_to out"),
        (lambda: Transformer(SYMBOLS, 1, 16, 2), "model.pth", "of the kind Transformer"),
    ],
    ids=["ending", "place", "folder", "lstm", "transformer"],
)
def test_what_cannot_be_saved_is_said_before_the_first_step(make: Any, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(b"in the way")
    trainer = Trainer(make(), TEXT, recipe())
    with pytest.raises(CheckpointError, match=message):
        trainer.train(save_to=tmp_path / name)
    assert not trainer.steps
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


def test_tokens_that_the_model_does_not_know_are_said_before_the_first_step() -> None:
    text = Tokens.of([TEXT.window(0, 1000).astype(np.uint8), np.array([SYMBOLS], np.uint8)])
    trainer = Trainer(small_rwkv(), text, recipe())
    with pytest.raises(DataError, match=r"has the token 16 and the model knows only those below 16; "):
        trainer.train()
    assert not trainer.steps
    with pytest.raises(DataError, match="has the token 16"):
        mean_loss(small_rwkv(), text)


def test_ctrl_c_finishes_the_step_saves_and_returns(tmp_path: Path) -> None:
    def interrupt(step: Step) -> None:
        if step.number == 3:
            signal.raise_signal(signal.SIGINT)

    model, path, before = small_rwkv(), tmp_path / "model.pth", signal.getsignal(signal.SIGINT)
    outcome = Trainer(model, TEXT, recipe(tokens=10**9), interrupt).train(save_to=path)
    assert outcome.interrupted and len(outcome.steps) == 4
    assert signal.getsignal(signal.SIGINT) is before
    saved = receptance.load(path).model.state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_a_second_ctrl_c_is_an_ordinary_one() -> None:
    def interrupt(step: Step) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Trainer(small_lstm(), TEXT, recipe(tokens=10**9), interrupt).train()
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_leaves_signals_alone() -> None:
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(Trainer(small_lstm(), TEXT, recipe()).train()))
    thread.start()
    thread.join()
    assert len(outcomes[0].steps) == 10


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_loss_speed_and_time_left(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with LiveProgress(console, "training", bytes_per_token=1.0) as live:
        outcome = Trainer(small_lstm(), TEXT, recipe(), live).train()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    last = outcome.steps[-1].smooth_loss
    assert re.search(rf"loss +{last:.3f} \({bits(last):.2f} bits/byte\)", shown)
    assert "tokens/s" in shown and "0 s left" in shown
    assert terminal == ("gradient" in shown)


def test_progress_shows_the_use_of_the_peak() -> None:
    """2,000 tokens a second of 3 GFLOP each are 60 % of 10 TFLOP/s."""
    step = Step(9, 640, 0.3, 1.0, 1e-3, 2.0, 2.0, 1.0, 2000.0, 10**9, "")
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with LiveProgress(console, "training", flops_per_token=3e9, peak_flops=1e13) as live:
        live(step)
    assert re.search(r"use of the peak.*60\.0%", console.file.getvalue())  # type: ignore[attr-defined]


def test_validation_carries_the_state() -> None:
    """The loss of a stream read in short pieces is that of the same stream read at once."""
    model, text = small_lstm().double(), markov_text(500, seed=3)
    assert mean_loss(model, text, rows=3, length=7) == pytest.approx(
        mean_loss(model, text, rows=3, length=500), abs=1e-12
    )


def gradients(recipe: Training, version: str = "7", text: Tokens = TEXT) -> dict[str, torch.Tensor]:
    """Of the first step, in float64."""
    model = small_rwkv(version).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    trainer = Trainer(model, text, recipe)
    trainer.gradient(trainer.batches(0))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("version", ["4", "7"])
@pytest.mark.parametrize("changes", [{"rows_at_once": 1}, {"rows_at_once": 2}, {"recompute": True}], ids=str)
def test_parts_and_recomputing_change_nothing(version: str, changes: dict[str, Any]) -> None:
    whole, other = gradients(recipe(), version), gradients(recipe(**changes), version)
    assert whole.keys() == other.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-7, atol=1e-12)


def test_parts_of_ragged_documents_weigh_by_their_targets() -> None:
    text = Tokens.of([[1] * size + [0] for size in (3, 9, 14, 2)])
    whole, other = (gradients(recipe(order="documents", rows_at_once=n), text=text) for n in (0, 1))
    for name, gradient in whole.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-7, atol=1e-12)


def test_an_exploding_gradient_is_skipped_and_said() -> None:
    model = small_lstm()

    def explode(step: Step) -> None:
        if step.number == 24:
            model.head.weight.register_hook(lambda g: g * 1e6)

    outcome = Trainer(model, TEXT, recipe(tokens=64 * 26), explode).train()
    assert [step.number for step in outcome.steps if step.skipped] == [25]
    assert "times longer than usual" in outcome.steps[25].skipped
    again = Trainer(small_lstm(), TEXT, recipe(tokens=64 * 26, explodes=0.0)).train()
    assert not again.num_skipped


def test_a_broken_step_leaves_the_memory_of_a_text_alone() -> None:
    """Or all that follow would be broken, too."""
    trainer = Trainer(small_rwkv(), TEXT, recipe(order="in-order", tokens=64 * 12))
    trainer.train_step(trainer.batches(0))
    before = trainer.state
    hook = trainer.model.blocks[0].register_forward_hook(lambda module, inputs, out: (*out[:3], out[3] * math.nan))
    head = trainer.model.head.register_forward_hook(lambda module, inputs, out: out * math.nan)
    assert before is not None and trainer.train_step(trainer.batches(1)).skipped
    assert trainer.state is before
    hook.remove()
    head.remove()
    assert not trainer.train_step(trainer.batches(2)).skipped


def test_the_backward_pass_is_not_under_autocast() -> None:
    """What was computed in float32, as the recurrence, has gradients in float32."""
    model, seen = small_rwkv(), []
    model.head.weight.register_hook(lambda gradient: seen.append(torch.is_autocast_enabled("cpu")))
    Trainer(model, TEXT, recipe(precision="bfloat16", tokens=64)).train()
    assert seen == [False]


def test_the_loss_on_what_is_held_out_is_measured_on_time() -> None:
    plan = recipe(tokens=10 * 64).changed(watch={"held_out_every": 4, "held_out_tokens": 200})
    model = small_rwkv()
    outcome = Trainer(model, TEXT, plan, held_out=markov_text(193, seed=4)).train()
    assert [step.number for step in outcome.steps if step.held_out is not None] == [3, 7, 9]
    assert outcome.steps[-1].held_out == pytest.approx(mean_loss(model, markov_text(193, seed=4), rows=4, length=16))


@pytest.mark.parametrize("order", ["packed", "documents"])
def test_what_is_held_out_is_read_as_the_training_reads(order: str) -> None:
    """With documents apart, and only what is learnt; in any parts."""
    draw = np.random.default_rng(0)
    text = Tokens.of([[*draw.integers(1, 16, size), 0] for size in draw.integers(3, 12, 40)])
    model = small_rwkv()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    found = set()
    for rows_at_once in (0, 1, 2):
        chosen = recipe(order=order, apart=True, rows_at_once=rows_at_once, precision="float32").batch
        held = Measuring(text, chosen, 0, Ranks())
        found.add(round(held.loss(Learner(model), nullcontext), 5))
    total, count = 0.0, 0
    for a, b in zip(text.starts[:-1], text.starts[1:], strict=True):
        # In order, a document is foretold from the token that ends the one before.
        start = max(0, a - 1) if order == "packed" else a
        tokens = torch.from_numpy(text.window(int(start), int(b - start)))[None]
        logits, _ = model(tokens[:, :-1])
        total += torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="sum").item()
        count += tokens.shape[1] - 1
    assert len(found) == 1
    # In order, what is left over at the end of the rows is not read.
    assert found.pop() == pytest.approx(total / count, rel=1e-4 if order == "documents" else 0.05)


def test_memory_and_speed_are_told() -> None:
    steps = Trainer(small_lstm(), TEXT, recipe()).train().steps
    assert all(step.memory > 10e6 and step.tokens_per_second > 0 and step.gradient_norm > 0 for step in steps)
