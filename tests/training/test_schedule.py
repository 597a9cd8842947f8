"""Learning rates against the formulas of the official trainers, written out here on their own."""

from __future__ import annotations

import math

import pytest

from receptance.errors import ConfigError
from receptance.training.schedule import SHAPES, Schedule


def official_cosine(start: float, end: float, tokens: int, warmup: int, total: int) -> float:
    progress = min(1.0, max(0.0, (tokens - warmup) / (total - warmup)))
    share = end / start
    return start * (0.5 + share / 2 + (0.5 - share / 2) * math.cos(math.pi * progress))


@pytest.mark.parametrize("step", [10, 11, 57, 99, 100, 140])
def test_cosine_is_the_official_one(step: int) -> None:
    schedule = Schedule(start=6e-4, end=6e-5, warmup_steps=10)
    found = schedule(step, (step - 10) / (100 - 10))
    assert found == pytest.approx(official_cosine(6e-4, 6e-5, step * 512, 10 * 512, 100 * 512), rel=1e-12)


def test_warm_up_rises_from_a_hundredth() -> None:
    schedule = Schedule(start=1.0, end=0.1, warmup_steps=10)
    assert [round(schedule(step, 0.0), 6) for step in (0, 1, 5, 9, 10)] == [0.01, 0.109, 0.505, 0.901, 1.0]


def test_exponential_after_a_constant_part() -> None:
    schedule = Schedule(start=8e-4, end=2e-4, shape="exponential", constant=0.5, warmup_steps=0)
    assert [schedule(9, share) for share in (0.0, 0.5)] == [8e-4, 8e-4]
    assert schedule(9, 0.75) == pytest.approx(4e-4)
    assert schedule(9, 1.0) == pytest.approx(2e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_falls_from_start_to_end_and_stays(shape: str) -> None:
    schedule = Schedule(start=1e-3, end=1e-4, shape=shape, warmup_steps=0)
    rates = [schedule(0, share / 50) for share in range(51)]
    assert rates[0] == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-4)
    assert rates == sorted(rates, reverse=True)
    assert schedule(0, 7.0) == rates[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "spiral"}, "not one of cosine"),
        ({"shape": "exponential", "end": 0.0}, "make no exponential schedule"),
        ({"start": -1.0}, "make no cosine schedule"),
        ({"constant": 1.0}, "below 1"),
    ],
)
def test_bad_numbers_are_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**{"start": 1e-3, "end": 1e-4, **changes})  # type: ignore[arg-type]
