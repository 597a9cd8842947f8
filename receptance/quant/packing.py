"""Quantised matrices as they lie in memory and in files: in the order in which the kernels read them.

    packed = pack(weight, INT4, by_input=False)         # weight [out, in]: a Packed of two tensors
    unpack(packed)                                       # [out, in] float32 again, rounded
    unpack(packed, rows=(0, 1000))                       # some of its rows

`ops/cpu/storage.py` says what lies where.  Both work by pieces, in little memory, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..ops.cpu.storage import BY_INPUT, GROUP, PANEL, TILE
from .formats import FORMATS, INT4, INT8, Format, round_groups

# Weights that are rounded at a time: what a core's cache holds while candidates are compared.
PIECE = 2**17


class Packed(NamedTuple):
    """A quantised matrix [num_out, num_in].

    packed, scales   as `ops/cpu/storage.py` describes them
    kind             the number of the format, plus BY_INPUT where the matrix has a row for each input
    """

    packed: Tensor
    scales: Tensor
    kind: int
    num_out: int
    num_in: int

    @property
    def format(self) -> Format:
        return format_of_kind(self.kind)


def format_of_kind(kind: int) -> Format:
    """The format of a kind."""
    return next(format for format in FORMATS.values() if format.number == kind % BY_INPUT)


def num_outputs_stored(num_out: int, by_input: bool) -> int:
    """Outputs with those that fill up the last tile or panel."""
    unit = PANEL if by_input else TILE
    return -(-num_out // unit) * unit


def empty(num_out: int, num_in: int, format: Format, by_input: bool, device: torch.device | str = "cpu") -> Packed:
    """A matrix whose numbers are to be filled in.  Raises InputError where 32 does not divide the inputs."""
    if num_in % GROUP and not by_input:
        raise InputError(f"a matrix with {num_in} inputs cannot be quantised; {GROUP} has to divide them")
    stored = num_outputs_stored(num_out, by_input)
    if by_input:
        row: tuple[int, ...] = (PANEL,) if format is INT8 else (TILE, 4)
        shape: tuple[int, ...] = (stored // PANEL, num_in, *row)
        scales_shape: tuple[int, ...] = (stored // PANEL, num_in, PANEL // GROUP)
    else:
        # 32 weights of a group in 8 or 4 times 4 bytes.
        shape = (stored // TILE, num_in // GROUP, format.num_bits, TILE, 4)
        scales_shape = (stored // TILE, num_in // GROUP, TILE)
    packed = torch.empty(shape, dtype=torch.uint8, device=device)
    scales = torch.empty(scales_shape, dtype=torch.bfloat16, device=device)
    return Packed(packed, scales, format.number + BY_INPUT * by_input, num_out, num_in)


def pack(weight: Tensor, format: Format, by_input: bool = False) -> Packed:
    """weight [out, in], rounded and packed, on its device.  Raises InputError as `empty` and `round_groups` do."""
    num_out, num_in = weight.shape
    matrix = empty(num_out, num_in, format, by_input, weight.device)
    stored, unit = num_outputs_stored(num_out, by_input), 1 if by_input else TILE
    # Rows of what is rounded: inputs or outputs, so that a group is never cut.
    rows, width = (num_in, stored) if by_input else (num_out, num_in)
    step = max(1, PIECE // (width * unit)) * unit
    for start in range(0, rows, step):
        # In the order of the groups: to sum across them costs ten times as much.
        piece = weight[:, start : start + step].T.contiguous() if by_input else weight[start : start + step]
        padding = (0, stored - num_out, 0, 0) if by_input else (0, 0, 0, -len(piece) % TILE)
        q, scales = round_groups(torch.nn.functional.pad(piece, padding), format)
        part = slice(start // unit, -(-(start + len(piece)) // unit))
        place = (slice(None), part) if by_input else (part,)
        matrix.packed[place] = LAYOUTS[matrix.kind].pack(q)
        matrix.scales[place] = (
            scales.view(len(piece), -1, PANEL // GROUP).transpose(0, 1)
            if by_input
            else scales.view(-1, TILE, num_in // GROUP).mT
        )
    return matrix


def unpack(matrix: Packed, dtype: torch.dtype = torch.float32, rows: tuple[int, int] | None = None) -> Tensor:
    """The weight [out, in] in `dtype`, or its rows from the first to before the second of `rows`."""
    start, stop = rows or (0, matrix.num_out)
    layout = LAYOUTS[matrix.kind]
    if matrix.kind >= BY_INPUT:
        first, last = start // PANEL, -(-stop // PANEL)
        q = layout.unpack(matrix.packed[first:last])
        scales = matrix.scales[first:last].transpose(0, 1).flatten(1).to(_scale_dtype(dtype))
        whole = (q.unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)
        return _in(dtype, whole[:, start - first * PANEL : stop - first * PANEL].T)
    first, last = start // TILE, -(-stop // TILE)
    q = layout.unpack(matrix.packed[first:last])
    scales = matrix.scales[first:last].mT.flatten(0, 1).to(_scale_dtype(dtype))
    whole = (q.unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)
    return _in(dtype, whole[start - first * TILE : stop - first * TILE])


def _in(dtype: torch.dtype, weight: Tensor) -> Tensor:
    return weight.to(dtype).contiguous()


def _scale_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which a product with the scale is exact: whole numbers of 8 bits times a bfloat16 fit into a float32."""
    return torch.promote_types(dtype, torch.float32)


class Layout(NamedTuple):
    """Whole numbers to bytes and back; q is int8 [outputs, inputs], or [inputs, outputs] where it is by input."""

    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]


def _unsigned(q: Tensor, offset: int) -> Tensor:
    return (q.to(torch.int16) + offset).to(torch.uint8)


def _signed(unsigned: Tensor, offset: int) -> Tensor:
    return (unsigned.to(torch.int16) - offset).to(torch.int8)


def _pack_int8_by_output(q: Tensor) -> Tensor:
    tiles = _unsigned(q, 128).view(-1, TILE, q.shape[1] // GROUP, 8, 4)  # t r g s j
    return tiles.permute(0, 2, 3, 1, 4)


def _unpack_int8_by_output(packed: Tensor) -> Tensor:
    tiles = _signed(packed, 128).permute(0, 3, 1, 2, 4)  # t r g s j
    return tiles.reshape(tiles.shape[0] * TILE, -1)


def _pack_int4_by_output(q: Tensor) -> Tensor:
    tiles = _unsigned(q, 8).view(-1, TILE, q.shape[1] // GROUP, 4, 2, 4)  # t r g s half j
    tiles = tiles.permute(0, 2, 3, 4, 1, 5)
    return tiles[:, :, :, 0] | tiles[:, :, :, 1] << 4


def _unpack_int4_by_output(packed: Tensor) -> Tensor:
    halves = torch.stack([packed & 15, packed >> 4], dim=3)  # t g s half r j
    tiles = _signed(halves, 8).permute(0, 4, 1, 2, 3, 5)
    return tiles.reshape(tiles.shape[0] * TILE, -1)


def _pack_int8_by_input(q: Tensor) -> Tensor:
    return _unsigned(q, 128).view(len(q), -1, PANEL).transpose(0, 1)


def _unpack_int8_by_input(packed: Tensor) -> Tensor:
    return _signed(packed, 128).transpose(0, 1).flatten(1)


def _pack_int4_by_input(q: Tensor) -> Tensor:
    # Of the 32 bits of a lane, byte k holds the outputs of nibbles 2k and 2k + 1.
    nibbles = _unsigned(q, 8).view(len(q), -1, 4, 2, TILE)  # input panel k half lane
    return (nibbles[:, :, :, 0] | nibbles[:, :, :, 1] << 4).permute(1, 0, 3, 2)


def _unpack_int4_by_input(packed: Tensor) -> Tensor:
    lanes = packed.permute(1, 0, 3, 2)  # input panel k lane
    nibbles = torch.stack([lanes & 15, lanes >> 4], dim=3)
    return _signed(nibbles, 8).flatten(1)


LAYOUTS = {
    INT8.number: Layout(_pack_int8_by_output, _unpack_int8_by_output),
    INT4.number: Layout(_pack_int4_by_output, _unpack_int4_by_output),
    INT8.number + BY_INPUT: Layout(_pack_int8_by_input, _unpack_int8_by_input),
    INT4.number + BY_INPUT: Layout(_pack_int4_by_input, _unpack_int4_by_input),
}
