"""Orders are functions of the sample's number: each window once, the official order value for value."""

from __future__ import annotations

import pytest

from receptance.data import ORDERS, InOrder, MagicPrime, Random, Shuffled
from receptance.errors import DataError


@pytest.mark.parametrize("num_windows", [1, 2, 3, 7, 64, 65, 1000])
def test_shuffled_reads_every_window_once_an_epoch(num_windows: int) -> None:
    order = Shuffled(num_windows * 5 + 1, 5, seed=3)
    epochs = [[order(epoch * num_windows + n) for n in range(num_windows)] for epoch in range(3)]
    for starts in epochs:
        assert sorted(starts) == [5 * window for window in range(num_windows)]
    if num_windows >= 64:
        assert epochs[0] != epochs[1] != sorted(epochs[1])
        # Neighbours do not stay together.
        steps = [after - before for before, after in zip(epochs[0], epochs[0][1:], strict=False)]
        assert sum(step == 5 for step in steps) < 5
        assert [order(n) for n in range(num_windows)] == epochs[0]
        assert [Shuffled(num_windows * 5 + 1, 5, seed=4)(n) for n in range(num_windows)] != epochs[0]


def test_random_reaches_every_place_and_depends_on_the_seed() -> None:
    order = Random(20, 4, seed=1)
    starts = [order(n) for n in range(500)]
    assert set(starts) == set(range(16)) and max(starts) + 5 == 20
    assert starts == [Random(20, 4, seed=1)(n) for n in range(500)] != [Random(20, 4, seed=2)(n) for n in range(500)]


def test_in_order_reads_texts_side_by_side() -> None:
    order = InOrder(num_tokens=62, length=10, rows=3)
    assert [order(n) for n in range(6)] == [0, 20, 40, 10, 30, 50]
    assert [order(n) for n in range(6, 9)] == [0, 20, 40]
    assert [order.begins(step) for step in range(5)] == [True, False, True, False, True]
    assert order.carries and not Shuffled(62, 10).carries


def test_the_magic_prime_is_the_official_one() -> None:
    assert MagicPrime(1498226207, 512).prime == 2926181


def test_the_official_order_is_that_of_the_official_formula() -> None:
    tokens, length, world, epoch = 1498226207, 512, 4, 2
    order = MagicPrime(tokens, length)
    # train_temp/src/dataset.py: each rank's items of an epoch, from the numbers of epoch, item and rank.
    for rank in range(world):
        for item in (0, 1, 77, 40320 // world - 1):
            i = 1 + epoch * 40320 + item * world + rank
            factor = (5**0.5 - 1) / 2
            assert order(epoch * 40320 + item * world + rank) == ((int(2926181 * factor) * i**3) % 2926181) * length


def test_the_official_order_repeats_nothing() -> None:
    order = MagicPrime(1201, 4)
    starts = [order(n) for n in range(order.prime)]
    assert len(set(starts)) == order.prime and max(starts) + 5 <= 1201


@pytest.mark.parametrize("name", ORDERS)
def test_every_window_lies_within_the_text(name: str) -> None:
    order = ORDERS[name](1203, 10, seed=5, rows=2)
    starts = [order(n) for n in range(400)]
    assert min(starts) >= 0 and max(starts) + 11 <= 1203


@pytest.mark.parametrize("name", ORDERS)
def test_too_little_text_is_told(name: str) -> None:
    with pytest.raises(DataError, match="10 tokens, too few for 1 pieces of 10 and one more"):
        ORDERS[name](10, 10)


def test_too_little_text_for_the_official_order_is_told() -> None:
    with pytest.raises(DataError, match="3 pieces of 10 tokens, too few for the official order"):
        MagicPrime(35, 10)
