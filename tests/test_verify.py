"""`verify` passes what is right, fails what is wrong, and says what it could not look at."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from receptance import Config, ReceptanceError, official
from receptance.config import VERSIONS
from receptance.ops import dispatch
from receptance.verify import BOUNDS, Check, random_pieces, relative_difference, verify

Write = Callable[[str], Path]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_passes_in_float32(version: str, small_checkpoint: Write) -> None:
    report = verify(small_checkpoint(version), length=40, with_official=False)
    assert report.passed, report.checks
    assert {check.name for check in report.checks} >= {
        "chunked form, whole",
        "random pieces",
        "token by token",
        "a padded row of a batch",
    }
    assert report.skipped == (("official runtime", "not asked for"),)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_pass_within_their_bounds(dtype: torch.dtype, small_checkpoint: Write) -> None:
    report = verify(small_checkpoint("7"), length=40, dtype=dtype, with_official=False)
    assert report.passed, report.checks
    assert {check.bound for check in report.checks} == {BOUNDS[dtype]}


@pytest.mark.parametrize("version", ["6", "7"])
def test_the_official_runtime_agrees(version: str, small_checkpoint: Write) -> None:
    pytest.importorskip("rwkv")
    report = verify(small_checkpoint(version), length=20)
    witnesses = [check for check in report.checks if check.name.startswith("official")]
    assert len(witnesses) == 3 and report.passed, report.checks
    assert not report.skipped


def test_a_wrong_form_fails(small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    *others, chunked, reference = dispatch.FORMS["wkv7"]

    def wrong(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, state = chunked.function(*inputs)
        return y, state * 1.01

    monkeypatch.setitem(dispatch.FORMS, "wkv7", (*others, chunked._replace(function=wrong), reference))
    report = verify(small_checkpoint("7"), length=40, with_official=False)
    assert not report.passed
    assert next(check.name for check in report.checks if not check.passed) == "chunked form, whole"


def test_nan_never_passes() -> None:
    nan = math.nan
    assert not Check("logits", nan, 0.0, 1.0).passed
    assert not Check("state", 0.0, nan, 1.0).passed
    ones = torch.ones(2)
    for bad in (torch.tensor([1.0, nan]), torch.tensor([math.inf, 1.0])):
        assert relative_difference(bad, ones) == relative_difference(ones, bad) == math.inf
        assert relative_difference(bad, bad) == math.inf
        # In second place, where `max` would drop a NaN.
        assert max(0.0, relative_difference(bad, ones)) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_fails(bad: float, small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits are right and the shift is right; only the last tensor of the state is not."""
    *others, chunked, reference = dispatch.FORMS["wkv7"]

    def wrong(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, state = chunked.function(*inputs)
        state = state.clone()
        state[0, 0, 0, 0] = bad
        return y, state

    monkeypatch.setitem(dispatch.FORMS, "wkv7", (*others, chunked._replace(function=wrong), reference))
    report = verify(small_checkpoint("7"), length=40, with_official=False)
    failed = next(check for check in report.checks if check.name == "chunked form, whole")
    assert not report.passed and not failed.passed
    assert failed.logits <= failed.bound and failed.state == math.inf


@pytest.mark.parametrize(
    ("arguments", "said"), [({"length": 1}, "at least 2"), ({"dtype": torch.int8}, "no bound for")]
)
def test_what_cannot_be_verified_is_refused(arguments: dict[str, int], said: str, small_checkpoint: Write) -> None:
    with pytest.raises(ReceptanceError, match=said):
        verify(small_checkpoint("7"), **arguments)


def test_without_the_official_runtime_the_rest_is_done(
    small_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = verify(small_checkpoint("7"), length=10)
    assert report.passed and "pip install rwkv" in report.skipped[0][1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "5.2", "num_layers": 1}, "one layer"),
        ({"version": "6", "attention_dim": 128}, "128"),
        ({"group_norm_eps": 1e-5}, "64e-5"),
        ({"norm_eps": 1e-6}, "1e-06"),
    ],
)
def test_what_the_official_runtime_cannot_do(changes: dict[str, object], said: str) -> None:
    shape = Config(version="7", vocab_size=8, num_layers=2, dim=64).to_dict()
    for name in ("ffn_dim", "mix_rank", "decay_rank", "rate_rank", "value_rank", "gate_rank"):
        shape[name] = 0
    assert official.refuses(Config(**shape)) is None
    assert said in (official.refuses(Config(**(shape | changes))) or "")


def test_a_failure_of_the_official_runtime_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("rwkv")
    (tmp_path / "model.pth").write_bytes(b"nothing")
    with pytest.raises(ReceptanceError, match=r"the official runtime failed on this model: .+") as failure:
        official.logits(tmp_path / "model.pth", "7", [[[1, 2]]])
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("length", [2, 3, 6, 7, 100])
def test_random_pieces_add_up(length: int) -> None:
    for seed in range(20):
        pieces = random_pieces(length, random.Random(seed))
        assert sum(pieces) == length and min(pieces) >= 1 and len(pieces) > 1
