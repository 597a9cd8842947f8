"""A local Ray cluster, and a small model of bytes for it, in a precision in which batches of any size agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from receptance import Config
from receptance.checkpoints import save_checkpoint
from receptance.server import Recipe

from ..models.cases import noisy


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder: Path = tmp_path_factory.mktemp("many")
    config = Config(version="7", vocab_size=256, num_layers=2, dim=32, head_size=16)
    save_checkpoint(noisy(config, torch.float64), folder / "model.pth")
    loading = {"tokenizer": "bytes", "template": "g1", "dtype": "float64", "device": "cpu"}
    return Recipe(model=str(folder / "model.pth"), name="m", loading=loading)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Its cores are counted, not had: two replicas, their door and two workers share what there is."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()
