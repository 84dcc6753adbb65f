"""How the products of four_bit.py are launched, by the size of a matrix and the number of tokens.

They follow what was quickest on an H200 (`python -m benchmarks.launch_plans` times all of them).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch

ROWS, COLUMNS = 16, 64
"""Of a tile. Both sizes of a matrix are multiples of them."""
FEW_TOKENS = 8
"""Activations that `four_bit_few` keeps in registers."""
MANY_TOKENS = 64
"""Activations of a launch of `four_bit_many`."""
TABLE_END = 4096 + 256 * 256
"""Bytes of shared memory up to the end of the table of pairs."""
_STATIC = 1024
"""More bytes of shared memory than the compiler places itself."""
_LONG = 128
"""k-tiles of a matrix whose columns are in parts where it has few rows."""
_MANY_TURNS = 4
"""Row tiles of a block from which on its weights go through a ring in shared memory."""
_FULL = 128
"""Registers of a thread where a block has 16 warps."""
_WIDE = 7
"""Row tiles of a block from which on a warp has two of them, and long turns."""


class FewPlan(NamedTuple):
    """How `four_bit_few` is launched.

    A block has `warps` of `tiles` k-tiles each, fetched `ahead` k-tiles early; `blocks` share a
    multiprocessor, the columns are in `parts`. `ahead` divides `tiles`.
    """

    warps: int
    tiles: int
    ahead: int
    blocks: int
    parts: int


class RingPlan(NamedTuple):
    """How `four_bit_ring` is launched.

    A block has `warps` of `tiles` k-tiles each; the weights of `stages` row tiles are on their way.
    The columns are in `parts`.
    """

    warps: int
    tiles: int
    stages: int
    parts: int = 1

    def shared(self, group: int, offsets: bool) -> int:
        """Bytes of shared memory: the table, and the weights on their way."""
        scales = (1 + 2 * offsets) * COLUMNS // group * 32
        return TABLE_END + self.warps * self.stages * self.tiles * (512 + scales)


class ManyPlan(NamedTuple):
    """How `four_bit_many` is launched.

    A block has `row_warps` x `k_warps` warps of `tiles` row tiles each, which divide those of the
    matrix. A turn is `depth` k-tiles of a warp; activations of `stages` turns are in memory. `blocks`
    share a multiprocessor; the columns are in `parts`.
    """

    row_warps: int
    k_warps: int
    tiles: int
    depth: int
    stages: int
    blocks: int
    parts: int

    def shared(self, tokens: int) -> int:
        """Bytes of shared memory for `tokens` tiles of tokens: the table, and activations or sums."""
        stages = self.stages * self.depth * self.k_warps * tokens * 1024
        rows = self.tiles * self.row_warps * ROWS
        sums = self.k_warps * tokens * 8 * (rows + 4) * 4
        return max(TABLE_END + stages, _STATIC + sums)

    def smaller(self) -> ManyPlan:
        """One that takes less shared memory."""
        if self.stages > 2:
            return self._replace(stages=self.stages - 1)
        if self.depth > 1:
            return self._replace(depth=1)
        return self._replace(k_warps=self.k_warps // 2)


def most_tokens(rows: int, columns: int, cache: int) -> int:
    """Activations beyond this are multiplied by the expanded weights.

    Where the expanded matrix has no room in the `cache` bytes of a GPU's L2 it goes to memory and
    back: two launches that expand nothing are quicker.
    """
    return MANY_TOKENS if 2 * rows * columns <= cache else 2 * MANY_TOKENS


def pieces(count: int) -> list[slice]:
    """Which of `count` activations each launch of `four_bit_many` has.

    Of more than one launch none has so few that another kernel would be meant for them.
    """
    found, begin = [], 0
    while begin < count:
        left = count - begin
        size = left if left <= MANY_TOKENS else min(MANY_TOKENS, left - FEW_TOKENS - 1)
        found.append(slice(begin, begin + size))
        begin += size
    return found


@functools.cache
def token_tiles(count: int) -> int:
    """Tiles of 8 tokens that `count` takes, rounded up so that few kernels are compiled."""
    return next(tiles for tiles in (1, 2, 3, 4, 6, 8) if count <= 8 * tiles)


@functools.cache
def few_plan(columns: int) -> FewPlan:
    """Up to 16 warps whose k-tiles are all columns, or two blocks with parts of them."""
    across = columns // COLUMNS
    if across <= 64:
        return FewPlan(max(4, math.ceil(across / 4)), 4, 4, 1, 1)
    return FewPlan(16, 2, 2, 2, math.ceil(across / 32))


@functools.cache
def ring_plan(
    rows: int, columns: int, group: int, offsets: bool, processors: int, shared: int
) -> RingPlan | None:
    """Where each block has many row tiles, and a multiprocessor the memory for what is on its way."""
    across = columns // COLUMNS
    parts = math.ceil(across / 64)
    plan = RingPlan(max(4, math.ceil(across / parts / 4)), 4, 2, parts)
    wide = rows // ROWS * parts >= _MANY_TURNS * processors
    return plan if wide and plan.shared(group, offsets) <= shared else None


@functools.cache
def many_plan(
    rows: int,
    columns: int,
    count: int,
    processors: int,
    shared: int = 227 * 1024,
    gated: bool = False,
) -> ManyPlan:
    """One block for each multiprocessor where that goes: rows first, then parts of long columns.

    Where the matrix is `gated`, gate and up of a pair are one block's. No block has more than
    `shared` bytes of shared memory, of which there are 99 KiB at least.
    """
    down, across, tokens = rows // ROWS, columns // COLUMNS, token_tiles(count)
    parts = 4 if across >= _LONG and down <= 4 * processors else 1
    mine = math.ceil(down * parts / processors)
    tiles = _tiles_of_a_warp(down, mine, tokens, gated)
    if tiles > 2 or tiles == mine == 2:
        row_warps = mine // tiles
        k_warps = (16 if _registers(tiles, tokens) <= _FULL else 8) // row_warps
        depth = 2 if k_warps * row_warps == 8 and tokens <= 4 else 1
        plan = ManyPlan(row_warps, min(k_warps, across), tiles, depth, 4, 1, parts)
    else:
        warps = 16 if tokens <= 4 else 8
        row_warps = min(8, math.ceil(mine / tiles))
        row_warps += gated and row_warps * tiles % 2
        most = min(warps // row_warps, 8 if tokens <= 2 else 4, math.ceil(across / parts))
        k_warps = 2 ** int(math.log2(max(1, most)))
        depth = 2 if mine >= _WIDE or tiles == 1 else 1
        plan = ManyPlan(row_warps, k_warps, tiles, depth, 4, 1, parts)
    while plan.shared(tokens) > shared:
        plan = plan.smaller()
    return plan


def _tiles_of_a_warp(down: int, mine: int, tokens: int, gated: bool) -> int:
    """Row tiles of a warp where a block has `mine`: each reads the activations anew.

    All of a block where they are few. Of many, a good part as long as the sums leave room for
    weights, else two.
    """
    if mine in (2, 3) and down % mine == 0 and not (gated and mine % 2):
        return mine
    if mine >= _WIDE and tokens <= 2:
        for tiles in (7, 6, 5, 4):
            if mine % tiles == 0 and down % tiles == 0 and not (gated and mine % 2):
                return tiles
    return 2 if down % 2 == 0 and (mine >= _WIDE or tokens > 4) else 1


def _registers(tiles: int, tokens: int) -> int:
    """About as many has a thread of `four_bit_many`: sums, activations, weights, and the rest."""
    return 4 * tiles * tokens + 8 * tokens + 6 * tiles + 36


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.cache
def second_cache(device: torch.device) -> int:
    """Bytes of a GPU's L2."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


@functools.cache
def copies_in_bulk(device: torch.device) -> bool:
    """Whether a GPU has an engine that copies to the memory of blocks (9.0 and up)."""
    return torch.cuda.get_device_capability(device) >= (9, 0)


@functools.cache
def shared_memory(device: torch.device) -> int:
    """Bytes that a block may have on a GPU."""
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)
