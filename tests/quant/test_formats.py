"""Groups of 32 numbers, rounded: errors within their bounds, scales that are stored, numbers that are in range."""

from __future__ import annotations

import pytest
import torch

from receptance.errors import InputError
from receptance.quant.formats import INT4, INT8, Format, format_of, round_groups

both = pytest.mark.parametrize("format", [INT8, INT4], ids=lambda format: format.name)


def restored(q: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (q.unflatten(1, (-1, 32)) * scales.float()[..., None]).flatten(1)


def share(rows: torch.Tensor, other: torch.Tensor) -> float:
    return float((rows - other).square().sum() / rows.square().sum())


@both
def test_numbers_are_in_range_and_use_it(format: Format) -> None:
    q, scales = round_groups(torch.randn(200, 96), format)
    assert q.dtype == torch.int8 and scales.dtype == torch.bfloat16 and scales.shape == (200, 3)
    assert q.min() == format.lowest and q.max() == format.highest


def test_int8_is_off_by_half_a_step_at_most() -> None:
    rows = torch.randn(100, 64)
    q, scales = round_groups(rows, INT8)
    # A scale that was rounded down cuts a little off the largest number.
    step = scales.float().repeat_interleave(32, 1)
    assert ((restored(q, scales) - rows).abs() <= 0.501 * step + 0.004 * rows.abs()).all()
    assert share(rows, restored(q, scales)) < 4e-5


def test_int4_is_better_than_the_largest_number_alone_makes_it() -> None:
    rows = torch.randn(500, 64)
    groups = rows.unflatten(1, (-1, 32))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    step = (largest / -8).bfloat16().float()
    plain = ((groups / step).round().clamp(-8, 7) * step).flatten(1)
    found = restored(*round_groups(rows, INT4))
    errors = [(other - rows).square().unflatten(1, (-1, 32)).sum(-1) for other in (found, plain)]
    assert (errors[0] <= errors[1]).all()
    assert share(rows, found) < 0.93 * share(rows, plain) < 0.0075


@both
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, -3e38])
def test_extreme_groups_stay_what_they_are(format: Format, value: float) -> None:
    rows = torch.full((3, 32), value)
    found = restored(*round_groups(rows, format))
    assert found.isfinite().all()
    torch.testing.assert_close(found, rows, rtol=0.01, atol=1e-38)


@both
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_no_number_is_refused(format: Format, bad: float) -> None:
    rows = torch.randn(4, 64)
    rows[2, 40] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        round_groups(rows, format)


def test_formats_are_known_by_name() -> None:
    assert format_of("int4") is INT4 and INT4.bits_per_weight == 4.5 and INT8.bits_per_weight == 8.5
    with pytest.raises(InputError, match="choose int8 or int4"):
        format_of("int3")
