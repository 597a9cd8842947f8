"""The noise is a fixed function of three integers: other numbers would change what every seed gives."""

from __future__ import annotations

import hashlib

import torch

from receptance.generation.noise import LIMIT, uniform


def test_its_definition() -> None:
    whole = b"".join(number.to_bytes(8, "little") for number in (7, 3, 12))
    bits = int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little") // 2**11
    assert uniform(7, 3, 12) == bits / 2**53


def test_its_values() -> None:
    """Written down once; a seed must give the same text in every release."""
    assert uniform(0, 0, 0) == 0.156742553465558
    assert uniform(7, 0, 12) == 0.18776551727387736
    assert uniform(LIMIT - 1, LIMIT - 1, LIMIT - 1) == 0.3588326071597593


def test_each_number_matters_and_the_values_are_even() -> None:
    keys = [(seed, request, position) for seed in range(20) for request in range(20) for position in range(50)]
    values = torch.tensor([uniform(*key) for key in keys], dtype=torch.float64)
    assert len(values.unique()) == len(keys)
    assert values.min() >= 0 and values.max() < 1
    expected = len(keys) / 50
    counts = (values * 50).long().bincount(minlength=50)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 20 < chi_square < 95  # 49 degrees of freedom
    ordered = values.view(400, 50)
    assert torch.corrcoef(ordered.T).fill_diagonal_(0).abs().max() < 0.25  # neighbours do not go together
