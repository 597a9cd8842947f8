"""One process, two with DDP and two with FSDP2 take the same steps; each goes on from what the others saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from receptance.errors import ConfigError
from receptance.training import Compute, Ranks

from . import two_ranks
from .test_trainer import TEXT, recipe, small_rwkv
from .two_ranks import CASES, RESUMED, STEPS

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """The folder, and the losses of two processes by the name of the case."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in RESUMED:
        two_ranks.train(name, Ranks(), True, folder / "one first" / name, stop=STEPS // 2)
    two_ranks.start(folder)
    return folder, json.loads((folder / "losses.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one(name: str, found: Any) -> None:
    alone, together = two_ranks.train(name, Ranks(), alone=True), found[1][name]
    assert len(alone) == len(together) == STEPS + 2
    if "bfloat16" in name:
        # Weights and activations are rounded to it here, products alone there.
        assert together == pytest.approx(alone, rel=0.02)
    else:
        assert together == pytest.approx(alone, rel=1e-5)
    assert alone[-2] < alone[0]


@pytest.mark.parametrize("name", RESUMED)
def test_two_go_on_with_what_one_saved(name: str, found: Any) -> None:
    alone = two_ranks.train(name, Ranks(), alone=True)
    rest = found[1][f"{name}, resumed"]
    assert rest == pytest.approx(alone[-len(rest) :], rel=1e-5) and len(rest) == STEPS // 2 + 1


@pytest.mark.parametrize("name", RESUMED)
def test_one_goes_on_with_what_two_saved(name: str, found: Any) -> None:
    alone = two_ranks.train(name, Ranks(), alone=True)
    rest = two_ranks.train(name, Ranks(), True, found[0] / "two first" / name)
    assert rest == pytest.approx(alone[-len(rest) :], rel=1e-5) and len(rest) == STEPS // 2 + 1


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
