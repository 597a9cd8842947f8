"""Packed matrices against an unpacking one number at a time, at sizes that need padding and in several pieces."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba")

from receptance.errors import InputError
from receptance.ops.cpu.storage import BY_INPUT, INT4, INT8
from receptance.quant import packing
from receptance.quant.formats import round_groups
from receptance.quant.packing import LAYOUTS, Packed, format_of_kind, pack, unpack
from tests.ops.cpu.packing import random_matrix

KINDS = [INT8, INT4, INT8 + BY_INPUT, INT4 + BY_INPUT]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_size = pytest.mark.parametrize("size", [(1, 32), (17, 96), (100, 64), (300, 160)], ids=str)


@every_kind
@every_size
def test_unpacking_gives_what_the_layout_means(kind: int, size: tuple[int, int]) -> None:
    matrix = random_matrix(kind, *size)
    assert matrix.scales is not None
    packed = Packed(matrix.weights, matrix.scales, kind, *size)
    whole = unpack(packed)
    assert torch.equal(whole.double(), torch.from_numpy(matrix.meaning))
    assert torch.equal(unpack(packed, torch.bfloat16), whole.bfloat16())
    for rows in [(0, 1), (size[0] // 3, size[0]), (size[0] - 1, size[0])]:
        assert torch.equal(unpack(packed, rows=rows), whole[slice(*rows)])


@every_kind
@every_size
def test_packing_is_undone_exactly(kind: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    by_input, format = kind >= BY_INPUT, format_of_kind(kind)
    weight = torch.randn(size)
    packed = pack(weight, format, by_input)
    like = random_matrix(kind, *size)
    assert packed.packed.shape == like.weights.shape and packed.scales.shape == like.scales.shape  # type: ignore[union-attr]
    grouped = torch.nn.functional.pad(weight.T, (0, -size[0] % 128)) if by_input else weight
    q, scales = round_groups(grouped, format)
    rounded = (q.unflatten(1, (-1, 32)) * scales.float()[..., None]).flatten(1)
    assert torch.equal(unpack(packed), rounded.T[: size[0]] if by_input else rounded)
    # The bytes are those of their own numbers, and do not depend on how the matrix was cut.
    assert torch.equal(LAYOUTS[kind].pack(LAYOUTS[kind].unpack(packed.packed)), packed.packed)
    monkeypatch.setattr(packing, "PIECE", 1)
    again = pack(weight, format, by_input)
    assert torch.equal(again.packed, packed.packed) and torch.equal(again.scales, packed.scales)


@every_kind
def test_what_fills_up_the_last_tile_counts_for_nothing(kind: int) -> None:
    packed = pack(torch.randn(17, 32), format_of_kind(kind), kind >= BY_INPUT)
    used = packed.scales[:, :, :1] if kind >= BY_INPUT else packed.scales[1, :, :1]
    assert packed.scales.count_nonzero() == used.count_nonzero() + (0 if kind >= BY_INPUT else 16)


def test_a_width_that_32_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="48 inputs cannot be quantised"):
        pack(torch.randn(16, 48), format_of_kind(INT8))
