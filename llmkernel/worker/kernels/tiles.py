"""The packed layout of 4-bit matrices, which four_bit.cuh describes, and its plain reference.

It holds any format with a table of 16 values and a scale, or a scale and an offset, for groups of a
row's weights: bitsandbytes' NF4 and FP4, GPTQ and AWQ.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llmkernel.worker.kernels.plans import COLUMNS, ROWS

LEAST_GROUP = 32
"""Columns that share a scale; else a multiple of a tile's."""
_FACTOR = 64.0
"""Of scales in float16: what they are too large by."""


class Packed(NamedTuple):
    """A matrix [rows, columns] in tiles: code[nibble] * scale - offset.

    `weights` uint8 [rows / 16 * columns / 64 * 512]. `scales` float32, for the kernels float16,
    [rows / 16, columns / group, 8, 2] belong to `group` columns each, 32 or 64; the last two
    dimensions are rows g and g + 8 of the tile. `code` [16]: the value of each nibble, a float32.
    `offsets` float32 like `scales`.
    `order` int64 [columns]: the activation that each column is multiplied by, where that is
    not its own.
    """

    weights: Tensor
    scales: Tensor
    code: tuple[float, ...]
    rows: int
    columns: int
    offsets: Tensor | None = None
    order: Tensor | None = None

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.columns // self.scales.shape[1]


def pack(nibbles: Tensor, scales: Tensor, code: Tensor, offsets: Tensor | None = None) -> Packed:
    """Tiles of `nibbles` uint8 [rows, columns / 2], the first of each pair in the high half.

    `scales` and `offsets` [rows, columns / group] belong to `group` columns each: 32 or a
    multiple of 64. Raises ValueError for sizes that are no whole number of tiles or groups, and a
    table of other than 16 values.
    """
    if code.shape != (16,):
        raise ValueError(f"A table of 4 bits has 16 values, not {tuple(code.shape)}.")
    rows, columns = nibbles.shape[0], 2 * nibbles.shape[1]
    if rows % ROWS or columns % COLUMNS:
        raise ValueError(f"{rows} x {columns} is no whole number of {ROWS} x {COLUMNS} tiles.")
    down, across = rows // ROWS, columns // COLUMNS
    # [down, high row, g, across, half, c, step, pair] to
    # [down, across, g, c, half, step, pair, high row]
    tiles = nibbles.view(down, 2, 8, across, 2, 4, 2, 2).permute(0, 3, 2, 5, 4, 6, 7, 1)
    weights = tiles.contiguous().view(-1)
    shifts = None if offsets is None else _ordered(offsets, columns)
    values = tuple(code.float().tolist())
    return Packed(weights, _ordered(scales, columns), values, rows, columns, shifts)


def _ordered(scales: Tensor, columns: int) -> Tensor:
    """Scales [rows, groups] as the kernels read them, repeated for each 64 columns at least."""
    rows, groups = scales.shape
    group = columns // groups
    if group * groups != columns or (group != LEAST_GROUP and group % COLUMNS):
        raise ValueError(f"{groups} groups of {columns} columns; a group has 32 or n x 64.")
    if group > COLUMNS:
        scales = scales.repeat_interleave(group // COLUMNS, 1)
    tiles = scales.float().view(rows // ROWS, 2, 8, -1).permute(0, 3, 2, 1)
    return tiles.contiguous()


def narrow(packed: Packed) -> Packed:
    """The same with scales in float16, as the kernels read them: a twentieth less to read.

    They keep 11 bits: all of a scale that is one of the weights in 16 bits, as plain NF4 and FP4
    have it. The table is made smaller by a power of two, which changes no digit, and scales larger:
    from a millionth to a thousand. Smaller ones lose digits, and become nothing below a billionth.
    Raises ValueError where one is larger or no number.
    """
    scales = (packed.scales * _FACTOR).half()
    if not scales.isfinite().all():
        raise ValueError("A scale is too large for float16, or no number.")
    offsets = packed.offsets
    if offsets is not None:  # they are multiples of the scales
        kept = scales.float() / (packed.scales * _FACTOR)
        offsets = offsets * kept.nan_to_num(1.0)
    code = tuple(value / _FACTOR for value in packed.code)
    return packed._replace(scales=scales, code=code, offsets=offsets)


def expand(packed: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix [rows, columns] itself: the plain reference of every kernel here.

    Its columns are in the order of the packed ones, see `Packed.order`.
    """
    rows, columns = packed.rows, packed.columns
    tiles = functional.embedding(packed.weights.int(), _pairs(packed.code, packed.weights.device))
    tiles = tiles.view(rows // ROWS, columns // COLUMNS, 8, 4, 2, 2, 2, 2, 2)
    # [down, across, g, c, half, step, pair, high row, first or second] to
    # [down, high row, g, across, half, c, step, pair, first or second]
    values = tiles.permute(0, 7, 2, 1, 4, 3, 5, 6, 8).reshape(rows, -1, packed.group)
    values *= _by_row(packed.scales, rows)
    if packed.offsets is not None:
        values -= _by_row(packed.offsets, rows)
    return values.view(rows, columns).to(dtype)


@functools.cache
def _pairs(code: tuple[float, ...], device: torch.device) -> Tensor:
    """The two values of each byte [256, 2]; kept, since nothing may be copied into a captured graph."""
    numbers = torch.arange(256, device="cpu")
    values = torch.tensor(code, dtype=torch.float32, device="cpu")
    return values[torch.stack((numbers >> 4, numbers & 15), -1)].to(device)


def _by_row(scales: Tensor, rows: int) -> Tensor:
    """Scales as the kernels read them to [rows, groups, 1]."""
    return scales.permute(0, 3, 2, 1).reshape(rows, -1, 1)


def gated(gate: Packed, up: Packed) -> Packed:
    """One matrix whose row tiles are those of `gate` and `up` in turns, for `product(gated=True)`.

    Raises ValueError where the two are not of one kind.
    """
    same = gate[3:5] == up[3:5] and gate.group == up.group and gate.code == up.code
    if not same or (gate.offsets is None) != (up.offsets is None):
        raise ValueError("Gate and up differ in size or format.")

    def in_turns(first: Tensor, second: Tensor) -> Tensor:
        tiles = (tensor.view(gate.rows // ROWS, -1) for tensor in (first, second))
        return torch.stack(tuple(tiles), 1)

    offsets = None
    scales = in_turns(gate.scales, up.scales).view(-1, *gate.scales.shape[1:])
    if gate.offsets is not None and up.offsets is not None:
        offsets = in_turns(gate.offsets, up.offsets).view(scales.shape)
    weights = in_turns(gate.weights, up.weights).view(-1)
    return Packed(weights, scales, gate.code, 2 * gate.rows, gate.columns, offsets, gate.order)


def split(packed: Packed, rows: int) -> tuple[Packed, Packed]:
    """The first `rows` of a matrix and the rest, both whole tiles; no copies."""
    tiles = rows // ROWS
    first, second = (
        packed._replace(
            weights=packed.weights.view(packed.rows // ROWS, -1)[some].view(-1),
            scales=packed.scales[some],
            offsets=None if packed.offsets is None else packed.offsets[some],
            rows=count,
        )
        for some, count in ((slice(tiles), rows), (slice(tiles, None), packed.rows - rows))
    )
    return first, second
