"""One process, two with DDP and two with FSDP2 take the same steps; each goes on from what the others saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from receptance.errors import ConfigError
from receptance.training import Compute, Ranks

from . import two_ranks
from .test_trainer import TEXT, recipe, small_rwkv
from .two_ranks import CASES, RESUMED, STEPS

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


def test_two_processes_take_the_steps_of_one_and_go_on_with_each_other(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """One test, so that the two processes are started once."""
    alone = {name: two_ranks.train(name, Ranks(), alone=True) for name in CASES}
    for name in RESUMED:
        two_ranks.train(name, Ranks(), True, tmp_path / "one first" / name, stop=STEPS // 2)
    two_ranks.start(tmp_path)
    together: dict[str, list[float]] = json.loads((tmp_path / "losses.json").read_text())
    for name in CASES:
        with subtests.test(name):
            assert len(alone[name]) == len(together[name]) == STEPS + 2
            # In bfloat16, weights and activations are rounded to it there, products alone here.
            assert together[name] == pytest.approx(alone[name], rel=0.02 if "bfloat16" in name else 1e-5)
            assert alone[name][-2] < alone[name][0]
    for name in RESUMED:
        with subtests.test("two go on with what one saved", name=name):
            rest = together[f"{name}, resumed"]
            assert rest == pytest.approx(alone[name][-len(rest) :], rel=1e-5) and len(rest) == STEPS // 2 + 1
        with subtests.test("one goes on with what two saved", name=name):
            rest = two_ranks.train(name, Ranks(), True, tmp_path / "two first" / name)
            assert rest == pytest.approx(alone[name][-len(rest) :], rel=1e-5) and len(rest) == STEPS // 2 + 1


def test_rows_that_cannot_be_shared_are_told() -> None:
    with pytest.raises(ConfigError, match=r"batch.rows is 4, which 3 processes cannot share"):
        Ranks(count=3).own(4)


def test_fsdp_without_processes_is_told() -> None:
    from receptance.training import Trainer

    with pytest.raises(ConfigError, match="start it with torchrun"):
        Trainer(small_rwkv(), TEXT, recipe().changed(compute={"parallel": "fsdp"}))


def test_alone_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Ranks.join(Compute(device="cpu")) as ranks:
        assert ranks == Ranks(device=torch.device("cpu")) and ranks.is_first and not dist.is_initialized()
