"""Products with 4-bit weights: the packed layout, its plain reference, and kernels for a GPU.

The layout is described in four_bit.cuh. It holds any format with a table of 16 values and a scale,
or a scale and an offset, for groups of a row's weights: bitsandbytes' NF4 and FP4, GPTQ and AWQ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llmkernel.worker.kernels import launch, layer
from llmkernel.worker.kernels.plans import (
    COLUMNS,
    ROWS,
    FewPlan,
    ManyPlan,
    RingPlan,
    few_plan,
    has_clusters,
    many_plan,
    processors,
    ring_plan,
    shared_memory,
    token_tiles,
)

LEAST_GROUP = 32
"""Columns that share a scale; else a multiple of a tile's."""
MOST_TOKENS = 64
"""Activations beyond this are multiplied by the expanded weights."""
FEW_TOKENS = 8
"""Activations that `four_bit_few` keeps in registers."""
_MOST_UNITS = 2**16
"""Row tiles of a matrix whose columns are in parts: a million rows."""


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
    numbers = torch.arange(256, device=packed.code.device)
    pairs = packed.code[torch.stack((numbers >> 4, numbers & 15), -1)]
    tiles = functional.embedding(packed.weights.int(), pairs)
    tiles = tiles.view(rows // ROWS, columns // COLUMNS, 8, 4, 2, 2, 2, 2, 2)
    # [down, across, g, c, half, step, pair, high row, first or second] to
    # [down, high row, g, across, half, c, step, pair, first or second]
    values = tiles.permute(0, 7, 2, 1, 4, 3, 5, 6, 8).reshape(rows, -1, packed.group)
    values *= _by_row(packed.scales, rows)
    if packed.offsets is not None:
        values -= _by_row(packed.offsets, rows)
    return values.view(rows, columns).to(dtype)


def _by_row(scales: Tensor, rows: int) -> Tensor:
    """Scales as the kernels read them to [rows, groups, 1]."""
    return scales.permute(0, 3, 2, 1).reshape(rows, -1, 1)


class Norm(NamedTuple):
    """RMS normalisation of what is multiplied: x * rsqrt(mean(x^2) + eps) * weight [columns]."""

    weight: Tensor
    eps: float


def gated(gate: Packed, up: Packed) -> Packed:
    """One matrix whose row tiles are those of `gate` and `up` in turns, for `product(gated=True)`.

    Raises ValueError where the two are not of one kind.
    """
    same = gate[3:5] == up[3:5] and gate.group == up.group and torch.equal(gate.code, up.code)
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


def product(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """`x` [tokens, columns] times the transposed matrix, plus `bias` [rows]: [tokens, rows].

    With `norm`, x is normalised first. `residual` [tokens, rows] is added. With `gated` the matrix
    is one of `four_bit.gated`: silu(gate) * up [tokens, rows / 2], and there is no residual.

    On a GPU `x` is float16 or bfloat16 and contiguous; the result has its dtype, sums are
    float32. Enqueues kernels and waits for nothing once they are compiled. Elsewhere the
    reference computes it.
    """
    count, on_gpu = x.shape[0], _on_gpu(x)
    if packed.order is not None:
        if norm is not None:
            x, norm = layer.rms_norm(x, *norm), None
        x = x.index_select(-1, packed.order)
    if on_gpu and count <= FEW_TOKENS:
        ring, few = _ring_plan(packed, x.device), few_plan(packed.columns, has_clusters(x.device))
        if ring is not None:
            return ring_product(x, packed, bias, ring, norm=norm, residual=residual, gated=gated)
        if few.parts == 1 or (norm is None and not gated):
            return few_product(x, packed, bias, few, norm=norm, residual=residual, gated=gated)
    if norm is not None:
        x = layer.rms_norm(x, *norm)
    if on_gpu and count <= MOST_TOKENS:
        return many_product(x, packed, bias, residual=residual, gated=gated)
    weight = expand_on_gpu(packed, x.dtype) if on_gpu else expand(packed, x.dtype)
    output = functional.linear(x, weight, bias)
    if gated:
        return ungate(output)
    return output if residual is None else output + residual


def _on_gpu(x: Tensor) -> bool:
    return x.device.type == "cuda"


def _ring_plan(packed: Packed, device: torch.device) -> RingPlan | None:
    room = (processors(device), shared_memory(device))
    offsets = packed.offsets is not None
    return ring_plan(packed.rows, packed.columns, packed.group, offsets, *room)


def plain_product(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """`product` by torch alone, on any device and for `x` of any float dtype."""
    if packed.order is not None:
        x = x.index_select(-1, packed.order)
    return functional.linear(x, expand(packed, x.dtype), bias)


def ungate(output: Tensor) -> Tensor:
    """silu(gate) * up [tokens, rows / 2] of the rows of a gated matrix [tokens, rows]."""
    gate, up = output.view(output.shape[0], -1, 2, ROWS).unbind(2)
    return (functional.silu(gate) * up).flatten(1)


def few_product(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None,
    plan: FewPlan,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """Up to 8 tokens by one kernel; `norm` and `gated` are for plans of one part."""
    count, device, rows = x.shape[0], x.device, packed.rows
    size = (rows // ROWS // (1 + gated), processors(device))
    shared, kind = plan.shared(*size), _kind(packed, gated)
    kernel = _few_kernel(plan, x.dtype, kind, norm is not None, shared)
    output = torch.empty(count, rows // (1 + gated), dtype=x.dtype, device=device)
    split = plan.parts > 1 and not plan.joined
    sums = output.new_empty(plan.parts * output.numel(), dtype=torch.float32) if split else None
    weight, eps = norm or (None, 0.0)
    kernel(
        (plan.groups(*size) * plan.parts, 1),
        32 * plan.warps,
        [
            *_matrix(packed), x, weight, eps, bias, residual, output, sums,
            _counters(device) if split else None, rows, packed.columns, count,
        ],
        shared,
    )  # fmt: skip
    return output


def ring_product(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None,
    plan: RingPlan,
    *,
    norm: Norm | None = None,
    residual: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """Up to 8 tokens by one kernel that keeps more weights on their way."""
    count, rows = x.shape[0], packed.rows
    kind, shared = _kind(packed, gated), plan.shared(packed.group, packed.offsets is not None)
    kernel = _ring_kernel(plan, x.dtype, kind, norm is not None, packed.columns, shared)
    output = torch.empty(count, rows // (1 + gated), dtype=x.dtype, device=x.device)
    units = rows // ROWS // (1 + gated)
    weight, eps = norm or (None, 0.0)
    arguments = [*_matrix(packed), x, weight, eps, bias, residual, output, rows, count]
    kernel((min(units, processors(x.device)), 1), 32 * plan.warps, arguments, shared)
    return output


def many_product(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None = None,
    plan: ManyPlan | None = None,
    *,
    residual: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """1 to 64 tokens by one kernel."""
    count, device, rows = x.shape[0], x.device, packed.rows
    room = (processors(device), shared_memory(device))
    plan = plan or many_plan(rows, packed.columns, count, *room, gated)
    tokens, parts = token_tiles(count), plan.parts
    kernel, shared = _many_kernel(plan, x.dtype, _kind(packed, gated), tokens, packed.columns)
    output = torch.empty(count, rows // (1 + gated), dtype=x.dtype, device=device)
    sums = output.new_empty(parts * count * rows, dtype=torch.float32) if parts > 1 else None
    kernel(
        (math.ceil(rows // ROWS / (plan.tiles * plan.row_warps)), parts),
        32 * plan.row_warps * plan.k_warps,
        [
            *_matrix(packed), x, bias, residual, output, sums,
            _counters(device) if parts > 1 else None, rows, count,
        ],
        shared,
    )  # fmt: skip
    return output


def expand_on_gpu(packed: Packed, dtype: torch.dtype) -> Tensor:
    """`expand` by a kernel, for products of many tokens."""
    output = torch.empty(packed.rows, packed.columns, dtype=dtype, device=packed.weights.device)
    tiles = (packed.rows // ROWS) * (packed.columns // COLUMNS)
    kernel = launch.kernel("four_bit_expand", dtype, groups=COLUMNS // packed.group)
    arguments = [*_matrix(packed), output, packed.rows, packed.columns]
    kernel((math.ceil(tiles / 8), 1), 256, arguments)
    return output


class _Kind(NamedTuple):
    """What of the kernels' source is compiled for a matrix."""

    groups: int
    offsets: bool
    gated: bool

    def defines(self) -> dict[str, int]:
        return {name: int(value) for name, value in self._asdict().items() if value}


def _kind(packed: Packed, gated: bool) -> _Kind:
    return _Kind(COLUMNS // packed.group, packed.offsets is not None, gated)


@functools.cache
def _few_kernel(
    plan: FewPlan, dtype: torch.dtype, kind: _Kind, norm: bool, shared: int
) -> launch.Kernel:
    return launch.kernel("four_bit_few", dtype, shared, **_few_sizes(plan, kind, norm))


@functools.cache
def _ring_kernel(
    plan: RingPlan, dtype: torch.dtype, kind: _Kind, norm: bool, columns: int, shared: int
) -> launch.Kernel:
    return launch.kernel("four_bit_ring", dtype, shared, **_ring_sizes(plan, kind, norm, columns))


@functools.cache
def _many_kernel(
    plan: ManyPlan, dtype: torch.dtype, kind: _Kind, tokens: int, columns: int
) -> tuple[launch.Kernel, int]:
    """The kernel and the bytes of shared memory that it is launched with."""
    shared = plan.shared(tokens)
    sizes = _many_sizes(plan, kind, tokens, columns)
    return launch.kernel("four_bit_many", dtype, shared, **sizes), shared


def _few_sizes(plan: FewPlan, kind: _Kind, norm: bool) -> dict[str, int]:
    sizes = plan._asdict() | kind.defines() | ({"norm": 1} if norm else {})
    return sizes | ({"cluster": plan.parts} if sizes.pop("joined") else {})


def _ring_sizes(plan: RingPlan, kind: _Kind, norm: bool, columns: int) -> dict[str, int]:
    return plan._asdict() | kind.defines() | ({"norm": 1} if norm else {}) | {"columns": columns}


def _many_sizes(plan: ManyPlan, kind: _Kind, tokens: int, columns: int) -> dict[str, int]:
    sizes = plan._asdict() | kind.defines() | {"tokens": tokens, "columns": columns}
    del sizes["parts"]
    return sizes


def kernels_of(packed: Packed, *, norm: bool, gated: bool) -> Iterator[tuple[str, dict[str, int]]]:
    """Name and sizes of each kernel that `product` may launch for a matrix, for `launch.keep`."""
    kind, columns, device = _kind(packed, gated), packed.columns, packed.weights.device
    ring, few = _ring_plan(packed, device), few_plan(columns, has_clusters(device))
    inside = norm and packed.order is None  # the norm is part of the product
    least = FEW_TOKENS + 1
    if ring is not None:
        yield "four_bit_ring", _ring_sizes(ring, kind, inside, columns)
    elif few.parts == 1 or not (inside or gated):
        yield "four_bit_few", _few_sizes(few, kind, inside)
    else:
        least = 1
    room = (processors(device), shared_memory(device))
    for tokens in sorted({token_tiles(count) for count in range(least, MOST_TOKENS + 1)}):
        plan = many_plan(packed.rows, columns, 8 * tokens, *room, gated)
        yield "four_bit_many", _many_sizes(plan, kind, tokens, columns)
    yield "four_bit_expand", {"groups": kind.groups}


def _matrix(packed: Packed) -> list[Tensor | None]:
    return [packed.weights, packed.scales, packed.offsets, packed.code]


@functools.cache
def _counters(device: torch.device) -> Tensor:
    """Of blocks that have done their part; kernels leave them at zero."""
    return torch.zeros(_MOST_UNITS, dtype=torch.int32, device=device)
