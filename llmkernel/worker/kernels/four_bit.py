"""Products with 4-bit weights in the layout of `tiles`: kernels for a GPU, and their plain reference."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llmkernel.worker.kernels import launch, layer, plans
from llmkernel.worker.kernels.plans import (
    COLUMNS,
    FEW_TOKENS,
    MANY_TOKENS,
    ROWS,
    FewPlan,
    ManyPlan,
    RingPlan,
    few_plan,
    many_plan,
    most_tokens,
    pieces,
    processors,
    ring_plan,
    second_cache,
    shared_memory,
    token_tiles,
)
from llmkernel.worker.kernels.tiles import Packed, expand

_MOST_UNITS = 2**16
"""Row tiles of a matrix whose columns are in parts: a million rows."""


ANY_COUNT = range(1, MANY_TOKENS + 1)
"""Of tokens: more have the same kernels."""


class Norm(NamedTuple):
    """RMS normalisation of what is multiplied: x * rsqrt(mean(x^2) + eps) * weight [columns]."""

    weight: Tensor
    eps: float


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
    is one of `tiles.gated`: silu(gate) * up [tokens, rows / 2], and there is no residual.

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
        plan = _plan_of_few(packed, x.device, whole=norm is not None or gated)
        if isinstance(plan, RingPlan):
            return ring_product(x, packed, bias, plan, norm=norm, residual=residual, gated=gated)
        if plan is not None:
            return few_product(x, packed, bias, plan, norm=norm, residual=residual, gated=gated)
    if norm is not None:
        x = layer.rms_norm(x, *norm)
    if on_gpu and count <= most_tokens(packed.rows, packed.columns, second_cache(x.device)):
        return many_product(x, packed, bias, residual=residual, gated=gated)
    weight = expand_on_gpu(packed, x.dtype) if on_gpu else expand(packed, x.dtype)
    output = functional.linear(x, weight, bias)
    if gated:
        return ungate(output)
    return output if residual is None else output + residual


def _on_gpu(x: Tensor) -> bool:
    return x.device.type == "cuda"


def _plan_of_few(packed: Packed, device: torch.device, *, whole: bool) -> RingPlan | FewPlan | None:
    """Of products of few tokens; None where a block must have the `whole` columns and they are in parts."""
    room = (processors(device), shared_memory(device))
    offsets = packed.offsets is not None
    ring = ring_plan(packed.rows, packed.columns, packed.group, offsets, *room)
    plan = ring or few_plan(packed.columns)
    return None if whole and plan.parts > 1 else plan


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
    kernel = _few_kernel(plan, x.dtype, _kind(packed, gated), norm is not None)
    output = torch.empty(count, rows // (1 + gated), dtype=x.dtype, device=device)
    units = rows // ROWS // (1 + gated)
    places = max(1, processors(device) * plan.blocks // plan.parts)
    weight, eps = norm or (None, 0.0)
    kernel(
        (min(units, places) * plan.parts, 1),
        32 * plan.warps,
        [
            *_matrix(packed), x, weight, eps, bias, residual, output,
            *_to_add_up(plan.parts, count * rows, device), rows, packed.columns, count,
        ],
        plans.TABLE_END,
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
    """As `few_product`, by the kernel that keeps more weights on their way."""
    count, device, rows = x.shape[0], x.device, packed.rows
    kind, shared = _kind(packed, gated), plan.shared(packed.group, packed.offsets is not None)
    kernel = _ring_kernel(plan, x.dtype, kind, norm is not None, packed.columns, shared)
    output = torch.empty(count, rows // (1 + gated), dtype=x.dtype, device=device)
    units, places = rows // ROWS // (1 + gated), max(1, processors(device) // plan.parts)
    weight, eps = norm or (None, 0.0)
    kernel(
        (min(units, places) * plan.parts, 1),
        32 * plan.warps,
        [
            *_matrix(packed), x, weight, eps, bias, residual, output,
            *_to_add_up(plan.parts, count * rows, device), rows, count,
        ],
        shared,
    )  # fmt: skip
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
    """By a launch for each of `plans.pieces`, of which all but the last have about 64 tokens."""
    output = x.new_empty(x.shape[0], packed.rows // (1 + gated))
    for some in pieces(x.shape[0]):
        added = None if residual is None else residual[some]
        _many_product(x[some], packed, bias, plan, added, output[some])
    return output


def _many_product(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None,
    plan: ManyPlan | None,
    residual: Tensor | None,
    output: Tensor,
) -> None:
    count, device, rows, gated = x.shape[0], x.device, packed.rows, output.shape[1] < packed.rows
    room = (processors(device), shared_memory(device))
    plan = plan or many_plan(rows, packed.columns, count, *room, gated)
    tokens, parts = token_tiles(count), plan.parts
    kernel, shared = _many_kernel(plan, x.dtype, _kind(packed, gated), tokens, packed.columns)
    kernel(
        (math.ceil(rows // ROWS / (plan.tiles * plan.row_warps)), parts),
        32 * plan.row_warps * plan.k_warps,
        [
            *_matrix(packed), x, bias, residual, output,
            *_to_add_up(parts, count * rows, device), rows, count,
        ],
        shared,
    )  # fmt: skip


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
def _few_kernel(plan: FewPlan, dtype: torch.dtype, kind: _Kind, norm: bool) -> launch.Kernel:
    return launch.kernel("four_bit_few", dtype, plans.TABLE_END, **_few_sizes(plan, kind, norm))


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
    return plan._asdict() | kind.defines() | ({"norm": 1} if norm else {})


def _ring_sizes(plan: RingPlan, kind: _Kind, norm: bool, columns: int) -> dict[str, int]:
    return plan._asdict() | kind.defines() | ({"norm": 1} if norm else {}) | {"columns": columns}


def _many_sizes(plan: ManyPlan, kind: _Kind, tokens: int, columns: int) -> dict[str, int]:
    sizes = plan._asdict() | kind.defines() | {"tokens": tokens, "columns": columns}
    del sizes["parts"]
    return sizes


def kernels_of(
    packed: Packed,
    *,
    norm: bool,
    gated: bool,
    counts: Collection[int] = ANY_COUNT,
) -> Iterator[tuple[str, dict[str, int]]]:
    """Name and sizes of each kernel that `product` may launch for a matrix, for `launch.keep`.

    `counts` are the numbers of tokens of its steps.
    """
    kind, columns, device = _kind(packed, gated), packed.columns, packed.weights.device
    inside = norm and packed.order is None  # the norm is part of the product
    few = _plan_of_few(packed, device, whole=inside or gated)
    launched = {some.stop - some.start for count in counts for some in pieces(count)}
    least = FEW_TOKENS + 1
    if few is None:
        least = 1
    elif min(launched) <= FEW_TOKENS:
        if isinstance(few, RingPlan):
            yield "four_bit_ring", _ring_sizes(few, kind, inside, columns)
        else:
            yield "four_bit_few", _few_sizes(few, kind, inside)
    room = (processors(device), shared_memory(device))
    for tokens in sorted({token_tiles(count) for count in launched if count >= least}):
        plan = many_plan(packed.rows, columns, 8 * tokens, *room, gated)
        yield "four_bit_many", _many_sizes(plan, kind, tokens, columns)
    yield "four_bit_expand", {"groups": kind.groups}


def _matrix(packed: Packed) -> list[launch.Argument]:
    return [packed.weights, packed.scales, packed.offsets, packed.code]


def _to_add_up(
    parts: int, numbers: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Room for the `numbers` sums of each of `parts` of the columns, and counters; nothing for one part."""
    if parts == 1:
        return None, None
    return torch.empty(parts * numbers, dtype=torch.float32, device=device), _counters(device)


@functools.cache
def _counters(device: torch.device) -> Tensor:
    """Of blocks that have done their part; kernels leave them at zero."""
    return torch.zeros(_MOST_UNITS, dtype=torch.int32, device=device)
