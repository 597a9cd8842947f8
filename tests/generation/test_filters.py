"""Filters against a plain reference: the same tokens are kept, and they are drawn as often as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from receptance.generation import Sampler, Sampling, filters
from receptance.generation.filters import Filtered
from receptance.generation.ranking import largest, ranked

from .reference import distribution

CPU = torch.device("cpu")
NUM_SETTINGS, NUM_TOKENS = 200, 40


def random_settings(order: str, number: int) -> list[Sampling]:
    """Each filter is on in half of them, so that every combination occurs."""
    chance = np.random.default_rng(number)

    def maybe(value: float, otherwise: float) -> float:
        return value if chance.random() < 0.5 else otherwise

    return [
        Sampling(
            order=order,  # type: ignore[arg-type]
            temperature=maybe(chance.uniform(0.2, 3), 1),
            top_k=int(maybe(chance.integers(1, NUM_TOKENS + 5), 0)),
            top_p=maybe(chance.uniform(0, 1), 1),
            min_p=maybe(chance.uniform(0, 0.4), 0),
        )
        for _ in range(number)
    ]


def random_logits(rows: int, num_tokens: int = NUM_TOKENS, seed: int = 0) -> Tensor:
    """Every other row is rounded, as in a bfloat16 model, so that there are many ties."""
    logits = 2 * torch.randn(rows, num_tokens, generator=torch.Generator().manual_seed(seed))
    logits[::2] = (2 * logits[::2]).round() / 2
    return logits


def kept(logits: Tensor, settings: list[Sampling]) -> Tensor:
    """Which tokens can be drawn, [B, V]."""
    found = Filtered(settings, logits.shape[1], CPU).kept(logits)
    places = torch.arange(found.ids.shape[1]) < found.count
    return torch.zeros(logits.shape, dtype=torch.bool).scatter_(1, found.ids, places)


@pytest.mark.parametrize("first", [2, 1024], ids=["ranked in parts", "ranked at once"])
@pytest.mark.parametrize("order", ["official", "usual"])
def test_the_kept_tokens_are_the_references(order: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "FIRST", first)
    settings, logits = random_settings(order, NUM_SETTINGS), random_logits(NUM_SETTINGS)
    expected = np.stack([distribution(row.numpy(), one) > 0 for row, one in zip(logits, settings, strict=True)])
    assert 1 < expected.sum(1).mean() < 0.7 * NUM_TOKENS  # neither greedy nor unfiltered
    alone = torch.cat([kept(row[None], [one]) for row, one in zip(logits, settings, strict=True)])
    assert np.array_equal(alone.numpy(), expected)
    assert torch.equal(kept(logits, settings), alone)


@pytest.mark.parametrize("order", ["official", "usual"])
def test_tokens_are_drawn_as_often_as_the_reference_says(order: str) -> None:
    """Chi-square of 1,000 draws for each of 100 settings and order, 200 together."""
    settings, logits = random_settings(order, NUM_SETTINGS // 2), random_logits(NUM_SETTINGS // 2, seed=1)
    p_values, other_p_values = [], []
    for row, one in zip(logits, settings, strict=True):
        counts = drawn(row, one, 1000)
        p_values.append(p_value(counts, distribution(row.numpy(), one)))
        other = replace(one, order="usual" if order == "official" else "official")
        other_p_values.append(p_value(counts, distribution(row.numpy(), other)))
    assert min(p_values) > 1e-4, settings[int(np.argmin(p_values))]
    assert 0.3 < np.mean(p_values) < 0.8
    # The test can tell: drawn in the other order, many of the same settings would not pass.
    assert np.sum(np.array(other_p_values) < 1e-4) > 20


def drawn(logits: Tensor, sampling: Sampling, number: int) -> np.ndarray:
    """How often each token is drawn by as many requests."""
    rows = logits.expand(number, -1)
    sampler = Sampler([replace(sampling, seed=5)] * number, len(logits), range(number))
    return np.bincount(sampler.choose(rows).tokens.numpy(), minlength=len(logits))


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """How likely counts at least as far off are; tokens that are expected fewer than 5 times are taken together."""
    if counts[probabilities == 0].any():
        return 0.0
    expected = probabilities * counts.sum()
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(counts[~rare], counts[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    if len(counts) == 1:
        return 0.5  # only one outcome
    chi_square = ((counts - expected) ** 2 / expected).sum()
    half = torch.tensor([(len(counts) - 1) / 2, chi_square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def test_ranking_is_a_total_order() -> None:
    values = random_logits(6, 3000).clone()
    values[0, 5:9], values[1, 7], values[2] = -0.0, float("-inf"), 1.5
    values[0, 100:200:2] = 0.0
    for row in range(len(values)):
        expected = sorted(range(3000), key=lambda index: (-values[row, index].item(), index))
        assert ranked(values[row : row + 1], 3000)[0].tolist() == expected
        for n in (1, 7, 100):
            assert largest(values, n)[row].tolist() == expected[:n]
    some = ranked(values, 100)
    assert torch.equal(values.gather(1, some), values.gather(1, largest(values, 100)))


def test_flat_and_peaked_rows() -> None:
    """Thousands of tokens are kept, or three, in the same batch."""
    logits = torch.stack([torch.zeros(20000), torch.arange(20000.0), torch.arange(20000).neg() / 1000])
    rows = [Sampling(top_p=0.9, order="usual"), Sampling(top_p=0.9, order="usual"), Sampling(min_p=0.5, order="usual")]
    counts = kept(logits, rows).sum(1).tolist()
    assert counts == [18000, 3, 694]  # 1 + 1/e + 1/e**2 is above 0.9 of all, exp(-0.693) is above a half
    official = [replace(row, order="official") for row in rows]
    assert kept(logits, official).sum(1).tolist() == [20000, 3, 694]  # all of the first row are ties


@pytest.mark.parametrize("order", ["official", "usual"])
def test_a_filter_that_is_off_keeps_all_beside_one_that_is_on(order: str) -> None:
    """The first token's probability is 1 in float64, so a sum of probabilities cannot tell the others."""
    logits = torch.tensor([[50.0, 2.0, 1.0]]).expand(2, -1)
    rows = [Sampling(top_p=0.5, order=order), Sampling(min_p=1e-40, order=order)]  # type: ignore[arg-type]
    assert kept(logits, rows).tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 100])
@pytest.mark.parametrize("order", ["official", "usual"])
def test_extreme_temperatures(order: str, temperature: float) -> None:
    """p ** (1 / temperature) would be 0 for every token."""
    sampling = Sampling(temperature=temperature, top_p=0.99, order=order)  # type: ignore[arg-type]
    counts = drawn(torch.tensor([0.0, 3.0, 2.9, -50.0]), sampling, 2000)
    if temperature < 0.01:
        assert counts.tolist() == [0, 2000, 0, 0]
    else:
        assert (counts > 0).sum() >= 3
