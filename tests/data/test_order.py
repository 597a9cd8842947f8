"""Orders are functions of the sample's number: each window once, the official order value for value."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from receptance.data import ORDERS, Documents, InOrder, MagicPrime, Order, Packed, Random, Shuffled
from receptance.errors import DataError


def text(*ends: int) -> NDArray[np.int64]:
    """Where documents that end there start."""
    return np.array([0, *ends])


def places(order: Order, numbers: range) -> list[int]:
    return [order(number)[0] for number in numbers]


@pytest.mark.parametrize("num_windows", [1, 2, 3, 7, 64, 65, 1000])
def test_shuffled_reads_every_window_once_an_epoch(num_windows: int) -> None:
    order = Shuffled(text(num_windows * 5 + 1), 5, seed=3)
    epochs = [places(order, range(epoch * num_windows, (epoch + 1) * num_windows)) for epoch in range(3)]
    for starts in epochs:
        assert sorted(starts) == [5 * window for window in range(num_windows)]
    if num_windows >= 64:
        assert epochs[0] != epochs[1] != sorted(epochs[1])
        # Neighbours do not stay together.
        steps = [after - before for before, after in zip(epochs[0], epochs[0][1:], strict=False)]
        assert sum(step == 5 for step in steps) < 5
        assert places(order, range(num_windows)) == epochs[0]
        assert places(Shuffled(text(num_windows * 5 + 1), 5, seed=4), range(num_windows)) != epochs[0]


def test_random_reaches_every_place_and_depends_on_the_seed() -> None:
    starts = places(Random(text(20), 4, seed=1), range(500))
    assert set(starts) == set(range(16)) and max(starts) + 5 == 20
    assert starts == places(Random(text(20), 4, seed=1), range(500))
    assert starts != places(Random(text(20), 4, seed=2), range(500))


def test_in_order_reads_texts_side_by_side() -> None:
    order = InOrder(text(62), length=10, rows=3)
    assert places(order, range(6)) == [0, 20, 40, 10, 30, 50]
    assert places(order, range(6, 9)) == [0, 20, 40]
    assert [order.begins(step) for step in range(5)] == [True, False, True, False, True]
    assert order.carries and not Shuffled(text(62), 10).carries


def test_packed_windows_begin_where_documents_do_and_leave_nothing_out() -> None:
    # Documents of 3, 4, 2, 15, 6 and 5 tokens, in windows of 8 and one more.
    starts = text(3, 7, 9, 24, 30, 35)
    order = Packed(starts, 8)
    assert sorted(places(order, range(order.num_windows))) == [0, 8, 16, 23, 26]
    whole = [place for place in places(order, range(order.num_windows)) if place in (0, *(starts[1:-1] - 1))]
    assert sorted(whole) == [0, 8, 23]
    covered = {token for place in places(order, range(order.num_windows)) for token in range(place, place + 9)}
    assert covered == set(range(35))


@pytest.mark.parametrize("seed", range(20))
def test_packed_documents_that_fit_are_read_whole(seed: int) -> None:
    draw = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(draw.integers(1, 12, 200))])
    order = Packed(starts, 16)
    windows = places(order, range(order.num_windows))
    for start, end in itertools.pairwise(starts):
        # With the token before it, from which its first one is foretold.
        assert any(place <= max(0, start - 1) and end <= place + 17 for place in windows)


def test_documents_are_samples_of_their_own() -> None:
    # One of 5, of 1 (which has nothing to foretell), of 20 and of 3 tokens.
    order = Documents(text(5, 6, 26, 29), 8)
    assert order.num_windows == 5 and order.ragged and not Packed(text(30), 8).ragged
    # The long one is several, each of which goes on with the last token of the one before.
    whole = [(0, 5), (6, 9), (14, 9), (22, 4), (26, 3)]
    assert sorted(order(number) for number in range(5)) == whole
    assert sorted(order(number) for number in range(5, 10)) == whole


def test_the_magic_prime_is_the_official_one() -> None:
    assert MagicPrime(text(1498226207), 512).prime == 2926181


def test_the_official_order_is_that_of_the_official_formula() -> None:
    length, world, epoch = 512, 4, 2
    order = MagicPrime(text(1498226207), length)
    # train_temp/src/dataset.py: each rank's items of an epoch, from the numbers of epoch, item and rank.
    for rank in range(world):
        for item in (0, 1, 77, 40320 // world - 1):
            i = 1 + epoch * 40320 + item * world + rank
            factor = (5**0.5 - 1) / 2
            expected = ((int(2926181 * factor) * i**3) % 2926181) * length
            assert order(epoch * 40320 + item * world + rank) == (expected, length + 1)


def test_the_official_order_repeats_nothing() -> None:
    order = MagicPrime(text(1201), 4)
    starts = places(order, range(order.prime))
    assert len(set(starts)) == order.prime and max(starts) + 5 <= 1201


@pytest.mark.parametrize("name", ORDERS)
def test_every_window_lies_within_the_text(name: str) -> None:
    order = ORDERS[name](text(3, 40, 800, 1203), 10, seed=5, rows=2)
    samples = [order(n) for n in range(400)]
    assert min(start for start, _ in samples) >= 0 and max(start + size for start, size in samples) <= 1203


@pytest.mark.parametrize("name", ORDERS)
def test_too_little_text_is_told(name: str) -> None:
    size = 1 if name == "documents" else 10
    with pytest.raises(DataError, match=f"{size} tokens, too few for 1 pieces of 10 and one more"):
        ORDERS[name](text(size), 10)


def test_too_little_text_for_the_official_order_is_told() -> None:
    with pytest.raises(DataError, match="3 pieces of 10 tokens, too few for the official order"):
        MagicPrime(text(35), 10)
