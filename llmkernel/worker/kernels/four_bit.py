"""Products with 4-bit weights: the packed layout, its plain reference, and kernels for a GPU.

The layout is described in four_bit.cu, beside the kernels that read it. It holds any format
with a table of 16 values and a scale, or a scale and an offset, for groups of a row's weights:
bitsandbytes' NF4 and FP4, GPTQ and AWQ.
The kernels are compiled when they are first used, through NVRTC, which torch brings along;
no compiler and no header is needed.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROWS, COLUMNS = 16, 64
"""Of a tile. Both sizes of a matrix are multiples of them."""
LEAST_GROUP = 32
"""Columns that share a scale; else a multiple of a tile's."""
MOST_TOKENS = 64
"""Activations beyond this are multiplied by the expanded weights."""
_TABLE_BYTES = 256 * 32 * 4
_SOURCE = Path(__file__).with_name("four_bit.cu")


class Packed(NamedTuple):
    """A matrix [rows, columns] in tiles: code[nibble] * scale - offset.

    `weights` uint8 [rows / 16 * columns / 64 * 512]. `scales` float32 [rows / 16, columns /
    group, 8, 2] belong to `group` columns each, 32 or 64; the last two dimensions are rows g and
    g + 8 of the tile. `code` float32 [16]: the value of each nibble. `offsets` like `scales`.
    `order` int64 [columns]: the activation that each column is multiplied by, where that is
    not its own.
    """

    weights: Tensor
    scales: Tensor
    code: Tensor
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
    multiple of 64. Raises ValueError for sizes that are no whole number of tiles or groups.
    """
    rows, columns = nibbles.shape[0], 2 * nibbles.shape[1]
    if rows % ROWS or columns % COLUMNS:
        raise ValueError(f"{rows} x {columns} is no whole number of {ROWS} x {COLUMNS} tiles.")
    down, across = rows // ROWS, columns // COLUMNS
    # [down, high row, g, across, half, c, step, pair] to
    # [down, across, g, c, half, step, pair, high row]
    tiles = nibbles.view(down, 2, 8, across, 2, 4, 2, 2).permute(0, 3, 2, 5, 4, 6, 7, 1)
    weights = tiles.contiguous().view(-1)
    shifts = None if offsets is None else _ordered(offsets, columns)
    return Packed(weights, _ordered(scales, columns), code.float(), rows, columns, shifts)


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


def expand(packed: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix [rows, columns] itself: the plain reference of every kernel here.

    Its columns are in the order of the packed ones, see `Packed.order`.
    """
    rows, columns = packed.rows, packed.columns
    tiles = packed.weights.view(rows // ROWS, columns // COLUMNS, 8, 4, 2, 2, 2, 2)
    nibbles = tiles.permute(0, 7, 2, 1, 4, 3, 5, 6).reshape(rows, columns // 2).long()
    values = packed.code[torch.stack((nibbles >> 4, nibbles & 15), -1).flatten(1)]
    values = values * _by_column(packed.scales, packed)
    if packed.offsets is not None:
        values -= _by_column(packed.offsets, packed)
    return values.to(dtype)


def _by_column(scales: Tensor, packed: Packed) -> Tensor:
    plain = scales.permute(0, 3, 2, 1).reshape(packed.rows, -1)
    return plain.repeat_interleave(packed.group, 1)


def product(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """`x` [tokens, columns] times the transposed matrix, plus `bias` [rows]: [tokens, rows].

    On a GPU `x` is float16 or bfloat16 and contiguous; the result has its dtype, sums are
    float32. Enqueues kernels and waits for nothing once they are compiled. Elsewhere the
    reference computes it.
    """
    if x.device.type != "cuda":
        return plain_product(x, packed, bias)
    if packed.order is not None:
        x = x.index_select(-1, packed.order)
    count = x.shape[0]
    if count > MOST_TOKENS:
        return functional.linear(x, expand_on_gpu(packed, x.dtype), bias)
    if count == 1:
        return vector_product(x, packed, bias)
    return matrix_product(x, packed, bias)


def plain_product(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """`product` in torch alone, on any device, for `x` of any float dtype."""
    if packed.order is not None:
        x = x.index_select(-1, packed.order)
    return functional.linear(x, expand(packed, x.dtype), bias)


class VectorPlan(NamedTuple):
    """How `four_bit_vector` is launched: row tiles of a block, warps to each, tiles read ahead."""

    groups: int
    split: int
    ahead: int


class MatrixPlan(NamedTuple):
    """How `four_bit_matrix` is launched: row tiles and warps of a block, parts of the columns."""

    tiles: int
    warps: int
    parts: int


def vector_product(
    x: Tensor, packed: Packed, bias: Tensor | None = None, plan: VectorPlan | None = None
) -> Tensor:
    """`product` for one token."""
    device = x.device
    plan = plan or vector_plan(packed.rows, processors(device))
    warps = plan.groups * plan.split
    shared = _TABLE_BYTES + 2 * packed.columns + warps * ROWS * 4
    kernel = _kernel("four_bit_vector", x.dtype, shared, **plan._asdict())
    output = torch.empty(1, packed.rows, dtype=x.dtype, device=device)
    blocks = min(math.ceil(packed.rows // ROWS / plan.groups), processors(device))
    tensors = [*packed[:3], x, _or_null(bias, x), output]
    kernel((blocks, 1, 1), (32 * warps, 1, 1), [*tensors, packed.rows, packed.columns], shared)
    return output


def matrix_product(
    x: Tensor, packed: Packed, bias: Tensor | None = None, plan: MatrixPlan | None = None
) -> Tensor:
    """`product` for 1 to 64 tokens."""
    count, device = x.shape[0], x.device
    plan = plan or matrix_plan(packed.rows, packed.columns, count, processors(device))
    tokens = token_tiles(count)
    shared = max(_TABLE_BYTES, plan.warps * tokens * 512)
    kernel = _kernel(
        "four_bit_matrix", x.dtype, shared, tiles=plan.tiles, warps=plan.warps, tokens=tokens
    )
    output = torch.empty(count, packed.rows, dtype=x.dtype, device=device)
    split = plan.parts > 1
    sums = output.new_empty(plan.parts * output.numel() * split, dtype=torch.float32)
    blocks = math.ceil(packed.rows // ROWS / plan.tiles)
    tensors = [*packed[:3], x, _or_null(bias, x), output, sums]
    numbers = [packed.rows, packed.columns, count]
    kernel((blocks, plan.parts, 1), (32 * plan.warps, 1, 1), [*tensors, *numbers], shared)
    if split:
        size = output.numel()
        arguments = [sums, _or_null(bias, x), output, packed.rows, size, plan.parts]
        _kernel("four_bit_join", x.dtype)((math.ceil(size / 256), 1, 1), (256, 1, 1), arguments)
    return output


def expand_on_gpu(packed: Packed, dtype: torch.dtype) -> Tensor:
    """`expand` by a kernel, for products of many tokens."""
    output = torch.empty(packed.rows, packed.columns, dtype=dtype, device=packed.weights.device)
    tiles = (packed.rows // ROWS) * (packed.columns // COLUMNS)
    arguments = [packed.weights, packed.scales, packed.code, output, packed.rows, packed.columns]
    _kernel("four_bit_expand", dtype)((math.ceil(tiles / 8), 1, 1), (256, 1, 1), arguments)
    return output


def token_tiles(count: int) -> int:
    """Tiles of 8 tokens that `count` takes: 1, 2, 4 or 8, so that few kernels are compiled."""
    return next(tiles for tiles in (1, 2, 4, 8) if count <= 8 * tiles)


@functools.cache
def vector_plan(rows: int, processors: int) -> VectorPlan:
    """All warps of a multiprocessor in one block; three row tiles where that makes turns even."""
    tiles = rows // ROWS
    turns = {groups: math.ceil(tiles / (groups * processors)) * groups for groups in (2, 3)}
    if turns[3] < turns[2]:
        return VectorPlan(3, 8, 4)
    return VectorPlan(2, 16, 2)


@functools.cache
def matrix_plan(rows: int, columns: int, count: int, processors: int) -> MatrixPlan:
    """Two row tiles a block, and parts of the columns until there are blocks for the device."""
    tiles, parts = 2, 1
    blocks = math.ceil(rows // ROWS / tiles)
    enough = processors * (2.5 if count <= 16 else 1.9)
    while blocks * parts < enough and columns // COLUMNS // (2 * parts) >= 8:
        parts *= 2
    return MatrixPlan(tiles, 8, parts)


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def _kernel(name: str, dtype: torch.dtype, shared: int = 0, **sizes: int) -> Any:
    """A kernel of four_bit.cu compiled for these sizes and `shared` bytes of memory."""
    defines = [f"#define {key.upper()} {value}" for key, value in sizes.items()]
    defines.append(f"#define ONLY_{name}")
    if dtype == torch.bfloat16:
        defines.append("#define BF16")
    source = "\n".join([*defines, _SOURCE.read_text()])
    kernel = torch.cuda._compile_kernel(source, name)
    kernel.set_shared_memory_config(shared)
    return kernel


def _or_null(tensor: Tensor | None, like: Tensor) -> Tensor:
    """The tensor, or an empty one, whose address is null."""
    return like.new_empty(0) if tensor is None else tensor
