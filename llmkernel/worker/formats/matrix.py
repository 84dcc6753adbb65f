"""A quantised matrix as numbers, between the files' packing and the kernels'."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llmkernel.worker.kernels import tiles
from llmkernel.worker.kernels.plans import COLUMNS
from llmkernel.worker.kernels.tiles import LEAST_GROUP, Packed

MIDDLE = 8
"""The zero point of symmetric quantisation: 4 bits are then -8 to 7."""


class Matrix(NamedTuple):
    """weight[r, k] = (values[r, k] - zeros[r, g]) * scales[r, g], g the group of column k.

    `values` uint8 [rows, columns] and `zeros` uint8 [rows, groups] are 0 to 15, `scales`
    [rows, groups] floats. `length` columns are a group, the last one may have fewer. Where
    `groups` int64 [columns] is given it says which, else they follow one another.
    """

    values: Tensor
    scales: Tensor
    zeros: Tensor
    length: int
    groups: Tensor | None = None


def pack(matrix: Matrix) -> Packed:
    """The matrix in the kernels' layout; columns sorted by group where they are not.

    Rows are whole tiles and so are columns; `length` is a multiple of 32, or all columns.
    """
    values, order = _sorted(matrix)
    columns = values.shape[1]
    block = block_of(matrix.length)
    group = torch.arange(0, columns, block, device=values.device) // matrix.length
    scales = matrix.scales.float()
    offsets = None
    if (matrix.zeros != MIDDLE).any():
        offsets = ((matrix.zeros.float() - MIDDLE) * scales)[:, group]
    code = torch.arange(-MIDDLE, MIDDLE, device=values.device)
    packed = tiles.pack(_pairs(values), scales[:, group], code, offsets)
    return packed._replace(order=order)


def block_of(length: int) -> int:
    """Columns for which the layout keeps a scale, where `length` of them share one."""
    return LEAST_GROUP if length % COLUMNS else COLUMNS


def packed_bytes(rows: int, columns: int, length: int, *, offsets: bool, order: bool) -> int:
    """What `pack` takes of memory, at most."""
    scales = 4 * rows * columns // block_of(length)
    return rows * columns // 2 + scales * (1 + offsets) + 8 * columns * order


def _sorted(matrix: Matrix) -> tuple[Tensor, Tensor | None]:
    """The values with the columns of a group side by side, and where these columns were."""
    if matrix.groups is None:
        return matrix.values, None
    groups, order = matrix.groups.sort(stable=True)
    if torch.equal(groups, matrix.groups):
        return matrix.values, None
    return matrix.values[:, order], order


def _pairs(values: Tensor) -> Tensor:
    """Two values a byte, the first in the high half."""
    return (values[:, 0::2] << 4) | values[:, 1::2]
