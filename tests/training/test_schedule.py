"""Learning rates: the official curves, and the shapes of the others."""

from __future__ import annotations

import pytest

from receptance.errors import ConfigError
from receptance.training import Schedule
from receptance.training.schedule import SHAPES

from .plain import cosine


def test_cosine_is_the_official_one() -> None:
    """RWKV-LM `train_temp/src/trainer.py` counts in tokens; every step of it reads as many."""
    schedule = Schedule(tokens=100 * 512, end=0.1, warmup_steps=10)
    for step in range(100):
        done = max(0, step - 10) / 90
        assert 6e-4 * schedule.factor(step, done, 0.0) == pytest.approx(cosine(step, 100, 10, 6e-4, 6e-5), rel=1e-12)


def test_exponential_is_the_official_one() -> None:
    """RWKV-LM `RWKV-v4neo/src/trainer.py`: constant steps, then exponential, the step to come counted."""
    total, constant, warmup, first, last = 200, 30, 20, 8e-4, 1e-5
    schedule = Schedule(
        steps=total, shape="exponential", end=last / first, constant=constant / (total - warmup), warmup_steps=warmup,
        warmup_from=0.2,
    )  # fmt: skip
    for step in range(total):
        share = min(1.0, max(0.0, (step - constant - warmup + 1) / (total - constant - warmup)))
        official = first * (last / first) ** share
        if step < warmup:
            official *= 0.2 + 0.8 * step / warmup
        before, after = ((step + n - warmup) / (total - warmup) for n in (0, 1))
        assert first * schedule.factor(step, before, after) == pytest.approx(official, rel=1e-9)


def test_warm_up_rises_from_a_hundredth() -> None:
    schedule = Schedule(steps=100, warmup_steps=10)
    assert [round(schedule.factor(step, 0.0, 0.0), 6) for step in (0, 1, 5, 9, 10)] == [0.01, 0.109, 0.505, 0.901, 1.0]


def test_warm_up_stable_decay_stays_and_falls() -> None:
    schedule = Schedule(steps=100, shape="sqrt", end=0.0, constant=0.8, warmup_steps=0)
    assert [schedule.factor(9, share, share) for share in (0.0, 0.5, 0.8)] == [1.0, 1.0, 1.0]
    assert schedule.factor(9, 0.85, 0.85) == pytest.approx(0.5) and schedule.factor(9, 1.0, 1.0) == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_falls_to_its_end_and_stays(shape: str) -> None:
    schedule = Schedule(steps=50, end=0.1, shape=shape, warmup_steps=0)
    rates = [schedule.factor(0, share / 50, share / 50) for share in range(51)]
    assert rates[0] == pytest.approx(1.0) and rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert schedule.factor(0, 7.0, 7.0) == rates[-1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 9, "shape": "spiral"}, "schedule.shape is 'spiral'; give one of cosine"),
        ({"steps": 9, "shape": "cosin"}, "did you mean cosine"),
        ({"steps": 9, "shape": "exponential", "end": 0.0}, "which no exponential curve reaches"),
        ({"steps": 9, "constant": 1.0}, "schedule.constant is 1.0; it should be less than 1"),
        ({}, "schedule has no end; give exactly one of tokens, steps, epochs, seconds"),
        ({"steps": 9, "seconds": 3.0}, "schedule has steps and seconds; give exactly one"),
        ({"tokens": 0}, "schedule.tokens is 0; it should be greater than or equal to 1"),
        ({"seconds": float("nan")}, "schedule.seconds is nan; it should be a finite number"),
        ({"steps": 9, "warm_steps": 3}, "has no 'warm_steps'; did you mean warmup_steps"),
    ],
)
def test_bad_numbers_are_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Schedule(**values)
    assert "\n" not in str(caught.value)
