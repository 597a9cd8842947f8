"""What a training will need: by the papers' counts, and by what one really takes."""

from __future__ import annotations

import pytest
import torch

from receptance import Config, build
from receptance.errors import ConfigError
from receptance.ops.dispatch import use
from receptance.training import Batching, Compute, Schedule, Training
from receptance.training.plan import GPUS, Plan, plan_of, saved_bytes


def planned(config: Config, tokens: float | None = 1e9, count: int = 1, **compute: object) -> Plan:
    recipe = Training(
        batch=Batching(rows=512, length=4096, rows_at_once=4),
        schedule=Schedule(tokens=10**9),
        compute=Compute(**compute),
    )
    return plan_of(recipe, config, tokens, "h100", count, mfu=0.4)


def test_time_is_operations_by_speed() -> None:
    config = Config.preset("rwkv7-0.1b")
    made = planned(config)
    # Two for each weight of a product (not of the look-up) forward, and twice as many backward.
    matrices = made.parameters - config.vocab_size * config.dim
    assert 6 * matrices < made.flops_per_token < 1.2 * 6 * matrices
    assert made.tokens_per_second == pytest.approx(0.4 * 989e12 / made.flops_per_token)
    assert made.seconds == pytest.approx(1e9 / made.tokens_per_second)
    again = planned(config, recompute=True)
    assert again.flops_per_token == pytest.approx(made.flops_per_token * 4 / 3)
    assert again.seconds == pytest.approx(made.seconds * 4 / 3)
    assert planned(config, tokens=None).seconds is None


def test_fourteen_billion_on_64_gpus() -> None:
    config = Config.preset("rwkv7-13.3b")
    whole, sharded = planned(config, count=64), planned(config, count=64, parallel="fsdp", recompute=True)
    assert whole.parameters == pytest.approx(13.27e9, rel=0.01)
    # Sixteen bytes for each parameter, and two more for its copy in bfloat16.
    assert not whole.fits and whole.memory["total"] > 18 * whole.parameters
    assert sharded.fits and sharded.memory["weights, float32"] == pytest.approx(4 * whole.parameters / 64)
    assert planned(config, count=64, parallel="fsdp").memory["total"] > sharded.memory["total"]
    groups = planned(config, count=64, parallel="fsdp", replicas=8)
    assert groups.memory["gradients"] == pytest.approx(8 * sharded.memory["gradients"])
    assert sharded.seconds == pytest.approx(whole.seconds * 4 / 3)


@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_what_layers_keep_is_what_they_really_keep(version: str) -> None:
    config = Config(version=version, vocab_size=64, num_layers=4, dim=128)
    model, seen, held = build(config).to(torch.bfloat16), {}, []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            held.append(tensor)
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    # The forms that serve on a GPU; the kernels of the CPU keep less.
    with use("chunked"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.features(torch.zeros(2, 512, dtype=torch.long))
    assert 4 * 2 * 512 * saved_bytes(config) == pytest.approx(sum(seen.values()), rel=0.15)


def test_a_gpu_that_nobody_knows_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no GPU is known as 'h10'; did you mean h100\?"):
        plan_of(Training(schedule=Schedule(steps=1)), Config.preset("rwkv7-0.1b"), None, "h10")
    assert all(gpu.peak > 1e13 and gpu.memory > 1e10 for gpu in GPUS.values())
