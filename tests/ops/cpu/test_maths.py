"""exp, sigmoid and tanh in float32 against NumPy in float64, at every size of number, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from receptance.ops.cpu.jit import kernel
from receptance.ops.cpu.maths import exp, sigmoid, tanh


@kernel
def exp_of(out: Any, x: Any) -> None:
    for i in range(x.size):
        out[i] = exp(x[i])


@kernel
def sigmoid_of(out: Any, x: Any) -> None:
    for i in range(x.size):
        out[i] = sigmoid(x[i])


@kernel
def tanh_of(out: Any, x: Any) -> None:
    for i in range(x.size):
        out[i] = tanh(x[i])


def wide_sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


CASES = [(exp_of, np.exp), (sigmoid_of, wide_sigmoid), (tanh_of, np.tanh)]
NAMES = ["exp", "sigmoid", "tanh"]


def apply(loop: Callable[..., None], x: np.ndarray) -> np.ndarray:
    out = np.full_like(x, np.nan)
    loop(out, x)
    return out


@pytest.mark.parametrize(("loop", "truth"), CASES, ids=NAMES)
def test_two_units_in_the_last_place(loop: Callable[..., None], truth: Callable[..., np.ndarray]) -> None:
    near_zero = np.ldexp(np.random.default_rng(0).standard_normal(100_001), -(np.arange(100_001) % 60))
    x = np.concatenate([np.linspace(-106, 88.7, 300_001), near_zero, [0.5, -0.5]]).astype(np.float32)
    want = truth(x.astype(np.float64))
    unit = np.maximum(np.spacing(np.abs(want).astype(np.float32)), np.float32(1e-45)).astype(np.float64)
    error = np.abs(apply(loop, x) - want) / unit
    assert error.max() < 2.5, f"{error.max()} units at {x[error.argmax()]}"


@pytest.mark.parametrize(("loop", "truth"), CASES, ids=NAMES)
def test_ends_and_what_is_no_number(loop: Callable[..., None], truth: Callable[..., np.ndarray]) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1000, -1000, 3e38, -3e38, 1e-45, -1e-45], np.float32)
    got = apply(loop, x)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, truth(x.astype(np.float64)).astype(np.float32))
    if loop is tanh_of:
        assert np.signbit(got[1]), "the sign of zero"


@pytest.mark.parametrize("loop", [loop for loop, _ in CASES], ids=NAMES)
def test_any_length(loop: Callable[..., None]) -> None:
    """The vectorised part of the loop and its rest compute the same."""
    x = np.random.default_rng(1).standard_normal(131).astype(np.float32)
    whole = apply(loop, x)
    for size in (1, 7, 15, 16, 17, 33, 63, 65):
        np.testing.assert_array_equal(apply(loop, x[:size].copy()), whole[:size])
