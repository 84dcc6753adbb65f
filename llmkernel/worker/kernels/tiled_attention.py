"""Prefill attention over pages for a GPU: the chunks of all rows of a step in one launch.

A program takes a tile of one row's queries, with all query heads of one key head side by side
as rows of a matrix product, and goes over the keys they see, tile by tile, with a running
maximum and sum (online softmax, Milakov and Gimelshein 2018; flash attention 2, Dao 2023).
Keys and values are read where they lie, by block table; no mask exists as a tensor, and only
tiles on the edge of what is visible are compared with positions.

Where the queries are too few to fill the device, the keys of a tile are split over several
programs, and joined as those of decode rows are. Lengths are read on the device, so nothing is
compiled again for another length; the host knows them too, and only sizes the launch by them.

The plain reference is `paged_attention.prefill_attention`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmkernel.worker.kernels.paged_attention import Chunks, Options, Pool
from llmkernel.worker.kernels.split_attention import _join_parts

_LEAST_DOT = 16
"""The smallest side of a matrix product in Triton."""
_PROGRAMS = 256
"""Programs that keep a large GPU busy."""
_PART = 512
"""Keys below which a part is not worth the work of joining it."""
_MOST_PARTS = 16
_PLAIN_SHARED = 48 * 1024
"""Bytes of shared memory that every GPU gives a program."""
_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


class Tiles(NamedTuple):
    """How a launch is cut: query heads times queries, keys, warps, tiles of keys on their way."""

    queries: int
    keys: int
    warps: int
    stages: int

    def shared_bytes(self, head: int, itemsize: int) -> int:
        """Shared memory for queries, for keys and values on their way, and a little, at most."""
        ahead = max(self.stages - 1, 1)
        return (self.queries + 2 * ahead * self.keys) * head * itemsize + 1024


_WIDE = (Tiles(128, 64, 8, 3), Tiles(128, 32, 8, 3), Tiles(64, 32, 4, 3), Tiles(32, 32, 4, 2))
_WIDE_256 = (Tiles(128, 32, 8, 3), Tiles(64, 32, 8, 3), Tiles(32, 32, 4, 2))
"""Whatever fits keeps its sums in registers, as ptxas says for 8.0 and 9.0."""
_FLOAT32 = (Tiles(32, 32, 4, 1), Tiles(16, 16, 4, 1))
"""Without tensor cores, as float32 is to be exact: small tiles, since products are unrolled."""


def tiled_prefill_attention(
    query: Tensor,
    pool: Pool,
    chunks: Chunks,
    options: Options,
    tiles: Tiles | None = None,
    parts: int = 0,
) -> Tensor:
    """Attention of the chunks' tokens: `query` [tokens, query_heads, head_dim] to the same shape.

    `query` holds the chunks one after the other and may be strided, but for its last dimension;
    16-bit or float32, as the pool. Scores and sums are float32. `tiles` and `parts`, up to
    16, are chosen where they are left out. Enqueues one or two kernels and waits for nothing.
    """
    count, heads, head_dim = query.shape
    kv_heads = pool.keys.shape[2]
    group = heads // kv_heads
    if query.stride(2) != 1:
        query = query.contiguous()
    padded_head = max(_LEAST_DOT, triton.next_power_of_2(head_dim))
    tiles = tiles or _tiles(padded_head, query.element_size(), _shared_memory(query.device))
    grid = (triton.cdiv(chunks.longest * group, tiles.queries), kv_heads, len(chunks.slots))
    parts = parts or _parts(triton.cdiv(count * group, tiles.queries) * kv_heads, chunks.furthest)
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    sums = logs = output
    if parts > 1:
        sums = query.new_empty((count, heads, parts, head_dim), dtype=torch.float32)
        logs = query.new_empty((count, heads, parts), dtype=torch.float32)
    sinks = options.sinks if options.sinks is not None else logs
    _attend_tile[(grid[0], grid[1], grid[2] * parts)](
        query, pool.keys, pool.values, chunks.tables, chunks.slots, chunks.lengths, chunks.begins,
        sinks, sums, logs, chunks.tables.stride(0), query.stride(0), query.stride(1), kv_heads,
        options.scale, options.softcap or 0.0, options.window or 0, parts,
        SPLIT=parts > 1,
        SOFTCAP=options.softcap is not None,
        WINDOW=options.window is not None,
        SINKS=options.sinks is not None and parts == 1,
        BLOCK=pool.block_size,
        QUERIES=tiles.queries,
        KEYS=tiles.keys,
        HEAD=head_dim,
        HEAD_PAD=padded_head,
        GROUP=group,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )  # fmt: skip
    if parts > 1:
        _join_parts[(count, heads)](
            sums,
            logs,
            sinks,
            output,
            heads,
            parts,
            EARLY=False,
            HAS_SINKS=options.sinks is not None,
            MOST=_MOST_PARTS,
            HEAD=head_dim,
            HEAD_PAD=padded_head,
            num_warps=4,
        )
    return output


@functools.cache
def _tiles(head: int, itemsize: int, shared: int) -> Tiles:
    """The largest tiles that fit into `shared` bytes of a program."""
    choices: Sequence[Tiles] = _WIDE if head <= 128 else _WIDE_256
    if itemsize == torch.float32.itemsize:
        choices = _FLOAT32 if head <= 64 else _FLOAT32[1:]
    fitting = (tiles for tiles in choices if tiles.shared_bytes(head, itemsize) <= shared)
    return next(fitting, choices[-1])


@functools.cache
def _shared_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return _PLAIN_SHARED
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", _PLAIN_SHARED))


def _parts(programs: int, furthest: int) -> int:
    """Parts of each tile's keys: a power of two, more than one only where there is work for it."""
    wanted = min(_PROGRAMS // max(programs, 1), furthest // _PART, _MOST_PARTS)
    return 1 << max(wanted, 1).bit_length() - 1


@triton.jit(
    do_not_specialize=["parts", "table_stride"],
    do_not_specialize_on_alignment=["tables", "slots", "lengths", "begins"],
)
def _attend_tile(
    query,
    keys,
    values,
    tables,
    slots,
    lengths,
    begins,
    sinks,
    sums,
    logs,
    table_stride,
    token_stride,
    head_stride,
    kv_heads,
    scale,
    softcap,
    window,
    parts,
    SPLIT: tl.constexpr,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    # the last tiles see most keys, so they go first
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = tl.program_id(1)
    row = tl.program_id(2) // parts
    part = tl.program_id(2) % parts
    first = tl.load(begins + row)
    count = (tl.load(begins + row + 1) - first).to(tl.int32)
    if tile * QUERIES >= count * GROUP:
        return
    length = tl.load(lengths + row).to(tl.int32)
    table = tables + tl.load(slots + row) * table_stride

    # a row of the products is a query and one of its heads that share the key head
    at = tile * QUERIES + tl.arange(0, QUERIES)
    token = at // GROUP
    head = kv_head * GROUP + at % GROUP
    dims = tl.arange(0, HEAD_PAD)
    mask = (token[:, None] < count) & (dims[None, :] < HEAD)
    place = (first + token) * token_stride + head * head_stride
    q = tl.load(query + place[:, None] + dims[None, :], mask=mask, other=0.0)

    position = length - count + token
    lowest = length - count + tile * QUERIES // GROUP
    highest = length - count + tl.minimum((tile * QUERIES + QUERIES - 1) // GROUP, count - 1)
    start, edge, inner, stop = _borders(lowest, highest, part, parts, window, WINDOW, KEYS)

    if SINKS:
        largest = tl.load(sinks + head).to(tl.float32) * _LOG2_E
        total = tl.full([QUERIES], 1.0, tl.float32)
    else:
        largest = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, HEAD_PAD], tl.float32)
    if WINDOW:
        result, largest, total = _attend_keys(
            q, keys, values, table, position, result, largest, total, start, edge, stop,
            kv_head, kv_heads, scale, softcap, window,
            SOFTCAP, WINDOW, True, BLOCK, KEYS, HEAD, HEAD_PAD,
        )  # fmt: skip
    result, largest, total = _attend_keys(
        q, keys, values, table, position, result, largest, total, edge, inner, stop,
        kv_head, kv_heads, scale, softcap, window,
        SOFTCAP, WINDOW, False, BLOCK, KEYS, HEAD, HEAD_PAD,
    )  # fmt: skip
    result, largest, total = _attend_keys(
        q, keys, values, table, position, result, largest, total, inner, stop, stop,
        kv_head, kv_heads, scale, softcap, window,
        SOFTCAP, WINDOW, True, BLOCK, KEYS, HEAD, HEAD_PAD,
    )  # fmt: skip

    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    result = result / total[:, None]
    place = ((first + token) * (kv_heads * GROUP) + head) * parts + part
    if SPLIT:
        log = tl.where(empty, float("-inf"), (largest + tl.log2(total)) * _LN_2)
        tl.store(logs + place, log, mask=token < count)
    tl.store(
        sums + place[:, None] * HEAD + dims[None, :],
        result.to(sums.dtype.element_ty),
        mask=mask,
    )


@triton.jit
def _borders(lowest, highest, part, parts, window, WINDOW: tl.constexpr, KEYS: tl.constexpr):
    """Start, edge, inner and stop of a part of the keys of queries at `lowest` to `highest`.

    Its keys are [start, stop); each query sees those of [edge, inner).
    """
    # keys [oldest, end) are seen by some query of the tile, [all_from, all_to) by each
    end = highest + 1
    all_to = lowest + 1
    oldest = 0
    all_from = 0
    if WINDOW:
        oldest = tl.maximum(lowest - window + 1, 0)
        all_from = tl.maximum(highest - window + 1, 0)
    steps = tl.cdiv(tl.cdiv(end - oldest, parts), KEYS)
    start = oldest + part * steps * KEYS
    stop = tl.minimum(start + steps * KEYS, end)
    edge = start + tl.cdiv(tl.maximum(tl.minimum(all_from, stop) - start, 0), KEYS) * KEYS
    inner = edge + tl.maximum(tl.minimum(all_to, stop) - edge, 0) // KEYS * KEYS
    return start, edge, inner, stop


@triton.jit
def _attend_keys(
    q,
    keys,
    values,
    table,
    position,
    result,
    largest,
    total,
    start,
    stop,
    end,
    kv_head,
    kv_heads,
    scale,
    softcap,
    window,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
    EDGE: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
):
    """Take keys [start, stop) into the running softmax; at the EDGE some are hidden or beyond `end`."""
    dims = tl.arange(0, HEAD_PAD)
    for tile in range(start, stop, KEYS):
        at = tile + tl.arange(0, KEYS)
        if EDGE:
            inside = at < end
            blocks = tl.load(table + at // BLOCK, mask=inside, other=0)
            mask = inside[:, None] & (dims[None, :] < HEAD)
        else:
            blocks = tl.load(table + at // BLOCK)
            mask = dims[None, :] < HEAD
        places = ((blocks * BLOCK + at % BLOCK) * kv_heads + kv_head) * HEAD
        k = tl.load(keys + places[:, None] + dims[None, :], mask=mask, other=0.0)
        v = tl.load(values + places[:, None] + dims[None, :], mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if SOFTCAP:
            # tanh(x) = 1 - 2 / (exp(2x) + 1), which no large x can overflow into NaN
            tamed = 1.0 - 2.0 / (tl.exp(2.0 * scale / softcap * scores) + 1.0)
            scores = tamed * (softcap * _LOG2_E)
        else:
            scores = scores * (scale * _LOG2_E)
        if EDGE:
            seen = inside[None, :] & (at[None, :] <= position[:, None])
            if WINDOW:
                seen = seen & (at[None, :] > position[:, None] - window)
            scores = tl.where(seen, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        reference = larger
        if EDGE:  # a query that has seen nothing yet
            reference = tl.where(larger == float("-inf"), 0.0, larger)
        weights = tl.exp2(scores - reference[:, None])
        shrink = tl.exp2(largest - reference)
        total = total * shrink + tl.sum(weights, 1)
        result = result * shrink[:, None]
        result += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = larger
    return result, largest, total
