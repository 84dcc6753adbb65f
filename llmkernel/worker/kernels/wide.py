"""4-bit products of 9 to 64 tokens by Hopper's warpgroups; their activations are arranged first."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from llmkernel.worker.kernels import launch, plans
from llmkernel.worker.kernels.four_bit import Packed, _counters, _kind, _matrix
from llmkernel.worker.kernels.plans import COLUMNS, ROWS


class WidePlan(NamedTuple):
    """How `four_bit_wide` is launched.

    A block has `row_tiles`, a warp each, in `row_groups` x `k_groups` warpgroups. A turn is `depth`
    k-tiles of a warp; weights of `w_stages` turns and activations of `x_stages` are in memory.
    """

    row_tiles: int
    row_groups: int
    k_groups: int
    depth: int
    w_stages: int
    x_stages: int
    parts: int

    def shared(self, packed: Packed, tokens: int) -> int:
        """Bytes of shared memory for `tokens` tiles of tokens."""
        groups = COLUMNS // packed.group
        tile = 512 + (1 + (packed.offsets is not None)) * groups * 64
        warps = self.row_groups * self.k_groups * 4
        inputs = self.k_groups * self.x_stages * self.depth * tokens * 1024
        ring = warps * self.w_stages * self.depth * tile
        sums = self.k_groups * tokens * 8 * (self.row_tiles * ROWS + 4) * 4
        return max(math.ceil(plans.TABLE_END / 1024) * 1024 + inputs + ring, 2048 + sums)


def arrange(x: Tensor) -> Tensor:
    """[count, columns] to [k-tile, step, half, 8 * tiles of tokens, 8], see four_bit_wide.cu."""
    count, columns = x.shape
    tokens = 8 * wide_tiles(count)
    whole = x.new_zeros(tokens, columns)
    whole[:count] = x
    # column = 64 k + 32 high + 8 c + 4 low + 2 half + e, step = 2 high + low, number = 2 c + e
    split = whole.view(tokens, columns // COLUMNS, 2, 4, 2, 2, 2)
    return split.permute(1, 2, 4, 5, 0, 3, 6).reshape(-1, 4, 2, tokens, 8)


def wide_tiles(count: int) -> int:
    """Tiles of 8 tokens that `count` takes."""
    return next(tiles for tiles in (2, 3, 4, 6, 8) if count <= 8 * tiles)


def wide_product(
    x: Tensor,
    count: int,
    packed: Packed,
    bias: Tensor | None,
    plan: WidePlan,
    *,
    residual: Tensor | None = None,
    gated: bool = False,
    arranged: bool = False,
) -> Tensor:
    """The product of an arranged `x` of `count` tokens; `arranged` arranges the result, too."""
    rows, tokens = packed.rows, wide_tiles(count)
    width = rows // (1 + gated)
    sizes = plan._asdict() | _kind(packed, gated).defines()
    sizes |= {"tokens": tokens, "columns": packed.columns}
    sizes |= {"arranged": 1} if arranged else {}
    del sizes["parts"]
    shared = plan.shared(packed, tokens)
    kernel = launch.kernel("four_bit_wide", x.dtype, shared, **sizes)
    output = x.new_empty((width // COLUMNS, 4, 2, 8 * tokens, 8) if arranged else (count, width))
    split = plan.parts > 1
    kernel(
        (math.ceil(rows // ROWS / plan.row_tiles), plan.parts),
        128 * plan.row_groups * plan.k_groups + 32,
        [
            *_matrix(packed), x, bias, residual, output,
            x.new_empty(plan.parts * count * rows, dtype=torch.float32) if split else None,
            _counters(x.device) if split else None, rows, count,
        ],
        shared,
    )  # fmt: skip
    return output


def wide_plans(packed: Packed, count: int, processors: int) -> list[WidePlan]:
    """Plans that fill the multiprocessors once."""
    down, across, tokens = packed.rows // ROWS, packed.columns // COLUMNS, wide_tiles(count)
    found = []
    for parts in (1, 2, 3, 4):
        mine = math.ceil(down * parts / processors)
        for row_tiles in {mine, mine + mine % 2, min(16, 4 * math.ceil(mine / 4))}:
            row_groups = math.ceil(row_tiles / 4)
            for k_groups in {1, 4 // row_groups, 3 // row_groups, 2 // row_groups} - {0}:
                for depth in (1, 2, 4):
                    for w_stages, x_stages in ((6, 4), (5, 3), (4, 3), (4, 2), (3, 2), (2, 2)):
                        plan = WidePlan(
                            row_tiles, row_groups, k_groups, depth, w_stages, x_stages, parts
                        )
                        fits = plan.shared(packed, tokens) <= 226 * 1024
                        if row_groups <= 4 and fits and across // parts // k_groups >= depth:
                            found.append(plan)
                            break
    return found
