"""A training on disk: it goes on exactly, keeps what it should, and says what is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from receptance.baselines import LSTM
from receptance.errors import CheckpointError, ConfigError, TrainingError
from receptance.training import Run, Step, Trainer, Training, read_metrics

from . import killing
from .test_trainer import SYMBOLS, TEXT, markov_text, recipe, small_lstm, small_rwkv

HELD_OUT = markov_text(600, seed=5)


def plan(steps: int = 10, **changes: Any) -> Training:
    sections = {"checkpoints": {"every_steps": 3}, "watch": {"held_out_every": 4, "held_out_tokens": 200}}
    return recipe(tokens=None, steps=steps, **changes).changed(**sections)


class StopError(Exception):
    """Ends a training in the middle, as a crash would."""


def train(folder: Path, chosen: Training, stop_after: int | None = None, model: Any = None) -> Trainer:
    def stop(step: Step) -> None:
        if step.number + 1 == stop_after:
            raise StopError

    run = Run(folder, chosen)
    trainer = Trainer(model or small_rwkv(), TEXT, chosen, stop, held_out=HELD_OUT, keeper=run)
    if stop_after is None:
        trainer.train()
    else:
        with pytest.raises(StopError):
            trainer.train()
    return trainer


def numbers(folder: Path) -> list[Any]:
    names = ("number", "tokens", "loss", "held_out", "learning_rate", "gradient_norm", "smooth_loss")
    return [[step[name] for name in names] for step in read_metrics(folder)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": "in-order"},
        {"order": "in-order", "rows_at_once": 2, "apart": True},
        {"order": "documents", "rows_at_once": 1},
        {"precision": "bfloat16", "recompute": True},
    ],
    ids=str,
)
def test_a_training_goes_on_exactly(changes: dict[str, Any], tmp_path: Path) -> None:
    chosen = plan(**changes)
    whole = train(tmp_path / "whole", chosen)
    for stop in (2, 5, 8):
        train(tmp_path / "parts", chosen, stop_after=stop)
    parts = train(tmp_path / "parts", chosen)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    for (name, a), b in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert [p["exp_avg_sq"].sum() for p in whole.optimizer.state.values()] == [
        p["exp_avg_sq"].sum() for p in parts.optimizer.state.values()
    ]


@pytest.mark.parametrize("make", [small_lstm, lambda: small_rwkv("4")], ids=["lstm", "rwkv-4"])
def test_other_models_go_on_too(make: Any, tmp_path: Path) -> None:
    train(tmp_path / "whole", plan(), model=make())
    train(tmp_path / "parts", plan(), stop_after=7, model=make())
    train(tmp_path / "parts", plan(), model=make())
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


def test_a_killed_training_is_the_one_that_nobody_disturbed(tmp_path: Path) -> None:
    """A sample of `make acceptance PART=resume`."""
    killing.check(tmp_path, kills=2, steps=24)


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    chosen = plan(steps=30).changed(checkpoints={"every_steps": 2, "keep": 3})
    train(tmp_path, chosen)
    run = Run(tmp_path, chosen)
    best = run.best()
    measured = {step["number"] + 1: step["held_out"] for step in read_metrics(tmp_path) if step["held_out"]}
    assert best is not None and int(best.name[5:]) == min(measured, key=measured.__getitem__)
    assert {path.name for path in run.found()} == {best.name, "step-0000026", "step-0000028", "step-0000030"}


def test_what_an_interrupted_save_left_is_removed_and_its_metrics_come_anew(tmp_path: Path) -> None:
    train(tmp_path, plan(), stop_after=8)
    half = tmp_path / "checkpoints" / ".step-0000009.partial"
    half.mkdir()
    (half / "training.json").write_text("{")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"number": 8, "lo')
    train(tmp_path, plan())
    assert [step["number"] for step in read_metrics(tmp_path)] == list(range(10))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_longer_schedule_goes_on_after_the_end(tmp_path: Path) -> None:
    train(tmp_path, plan(steps=4))
    train(tmp_path, plan(steps=7))
    assert len(read_metrics(tmp_path)) == 7
    # And with nothing left to do, nothing happens.
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train(tmp_path, plan(steps=7))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    trainer = Trainer(small_lstm(), TEXT, plan())
    with Run(tmp_path, plan()).opened(trainer), pytest.raises(TrainingError, match="another process trains in"):
        train(tmp_path, plan())


def _cut(path: Path) -> None:
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


DAMAGE = {
    "no text": (lambda path: (path / "training.json").write_text("{"), "is damaged or of another program"),
    "no position": (lambda path: (path / "training.json").write_text('{"format": 3}'), "is damaged or of another"),
    "no such file": (lambda path: (path / "training.json").unlink(), "is no checkpoint of a training"),
    "no weights": (lambda path: next(path.glob("*.safetensors")).unlink(), "is of another model|is damaged"),
    "short weights": (_cut, "is damaged and cannot be read; take an earlier checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_in_one_sentence(damage: str, tmp_path: Path) -> None:
    train(tmp_path, plan(steps=4))
    spoil, words = DAMAGE[damage]
    spoil(Run(tmp_path, plan()).found()[-1])
    with pytest.raises(CheckpointError, match=words) as caught:
        train(tmp_path, plan(steps=7))
    assert "\n" not in str(caught.value)


def test_another_model_is_told(tmp_path: Path) -> None:
    train(tmp_path, plan(steps=4), model=small_lstm())
    with pytest.raises(CheckpointError, match=r"is of another model: .* and this one's is \["):
        train(tmp_path, plan(steps=7), model=LSTM(SYMBOLS, 1, 24))


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", refuse)
    with pytest.raises(CheckpointError, match=r"the checkpoint cannot be written: .*no space left") as caught:
        train(tmp_path, plan(steps=4))
    assert "\n" not in str(caught.value)
    assert not Run(tmp_path, plan()).found()


def test_metrics_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give the folder of a training"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("no\n[1]\n")
    with pytest.raises(TrainingError, match="has no step of a training in it"):
        read_metrics(tmp_path)


def test_metrics_are_written_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, plan().changed(watch={"tensorboard": True, "held_out_every": 5}))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    steps = read_metrics(tmp_path)
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([step["loss"] for step in steps])
    assert [e.step for e in events.Scalars("held_out")] == [steps[4]["tokens"], steps[9]["tokens"]]


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    train(tmp_path, plan())
    told = json.loads((Run(tmp_path, plan()).found()[-1] / "training.json").read_text())
    assert told["position"]["steps"] == 10 and told["versions"]["torch"] == torch.__version__
    assert told["model"]["version"] == "7" and told["recipe"]["schedule"]["steps"] == 10
    shutil.rmtree(tmp_path)


def test_a_recipe_that_reads_the_text_otherwise_does_not_go_on(tmp_path: Path) -> None:
    train(tmp_path, plan(steps=4))
    for changes in ({"rows": 2}, {"length": 8}, {"order": "in-order"}, {"seed": 3}, {"apart": True}):
        (name,) = changes
        with pytest.raises(ConfigError, match=rf"batch\.{name} is .* and was .* leave it as it was"):
            train(tmp_path, plan(steps=7, **changes))
    # How many rows are computed at a time is nobody's business.
    train(tmp_path, plan(steps=7, rows_at_once=2))


def test_a_training_that_was_stuck_can_be_gone_on_with(tmp_path: Path) -> None:
    """With a lower rate, as it is told, or a model that was mended."""
    model = small_rwkv()
    hook = model.head.register_forward_hook(lambda module, inputs, out: out * float("nan"))
    with pytest.raises(TrainingError, match=f"what was learned before that is in {tmp_path}"):
        train(tmp_path, plan(steps=30, patience=5), model=model)
    hook.remove()
    trainer = train(tmp_path, plan(steps=30, patience=5, lr=1e-3), model=model)
    assert len(read_metrics(tmp_path)) == 30 and trainer.position.num_skipped == 5
