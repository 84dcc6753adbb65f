"""Decode attention over pages for a GPU: one query per row, keys split over the device.

A program takes one row, one key head and one part of the row's tokens, with all query
heads of that key head as the rows of a small matrix product; where there are several parts
a second kernel joins them by their log-sum-exp (flash decoding, Dao et al. 2023, over the
pages of Kwon et al. 2023). The number of parts depends on the batch and never on a length,
so that the launch can be captured in a graph; parts beyond a row's end do nothing. On GPUs
that can, both are launched while the kernel before them still runs, as those of launch.py.

The plain reference is `paged_attention.decode_attention`.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmkernel.worker.kernels.launch import EARLY_START
from llmkernel.worker.kernels.paged_attention import DecodeRows, Options, Pool

_TILE = 32
"""Tokens that a program reads at a time."""
_PROGRAMS = 512
"""Programs that keep a large GPU busy."""
_MOST_PARTS = 32
_LEAST_DOT = 16
"""The smallest side of a matrix product in Triton."""


def split_decode_attention(
    query: Tensor, pool: Pool, rows: DecodeRows, options: Options, parts: int = 0
) -> Tensor:
    """Attention of one query per row: `query` [rows, query_heads, head_dim] to the same shape.

    Keys and values are read where they lie; nothing else of the pool is touched. Scores and
    sums are float32. `parts` of each row, up to 32, are chosen by the number of rows
    where it is 0. Enqueues one or two kernels and waits for nothing.
    """
    count, heads, head_dim = query.shape
    kv_heads = pool.keys.shape[2]
    group = heads // kv_heads
    parts = parts or _parts(count * kv_heads)
    query = query.contiguous()
    output = torch.empty_like(query)
    sums, logs = output, output
    if parts > 1:
        sums = query.new_empty((count, heads, parts, head_dim), dtype=torch.float32)
        logs = query.new_empty((count, heads, parts), dtype=torch.float32)
    sinks = logs if options.sinks is None else options.sinks
    sized = {
        "HAS_SINKS": options.sinks is not None,
        "HEAD": head_dim,
        "HEAD_PAD": max(_LEAST_DOT, triton.next_power_of_2(head_dim)),
        "num_warps": 4,
    }
    early = starts_early(query.device)
    if early:
        sized["launch_pdl"] = True
    _attend_part[(count, kv_heads, parts)](
        query,
        pool.keys,
        pool.values,
        rows.tables,
        rows.slots,
        rows.context_lens,
        sums,
        logs,
        sinks,
        rows.tables.stride(0),
        kv_heads,
        options.scale,
        options.softcap or 0.0,
        options.window or 0,
        parts,
        EARLY=early,
        SPLIT=parts > 1,
        SOFTCAP=options.softcap is not None,
        BLOCK=pool.block_size,
        TILE=_TILE,
        GROUP=group,
        GROUP_PAD=max(_LEAST_DOT, triton.next_power_of_2(group)),
        **sized,
    )
    if parts > 1:
        _join_parts[(count, heads)](
            sums, logs, sinks, output, heads, parts, EARLY=early, MOST=_MOST_PARTS, **sized
        )
    return output


@functools.cache
def starts_early(device: torch.device) -> bool:
    """Whether kernels on a device may start while the one before them runs."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= EARLY_START


def _parts(programs: int) -> int:
    """Parts of each row: a power of two that fills the device together with the rows."""
    parts: int = triton.next_power_of_2(max(1, _PROGRAMS // programs))
    return min(parts, _MOST_PARTS)


# Nothing is compiled anew for where a step's numbers lie in their buffer, nor for a number of parts or
# for how long a context may be: that takes a second, with everybody waiting.
@triton.jit(
    do_not_specialize=["parts", "table_stride"],
    do_not_specialize_on_alignment=["slots", "lengths"],
)
def _attend_part(
    query,
    keys,
    values,
    tables,
    slots,
    lengths,
    sums,
    logs,
    sinks,
    table_stride,
    kv_heads,
    scale,
    softcap,
    window,
    parts,
    EARLY: tl.constexpr,
    SPLIT: tl.constexpr,
    SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
) -> None:
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths + row)
    table = tables + tl.load(slots + row) * table_stride
    oldest = tl.where(window > 0, tl.maximum(length - window, 0), 0)
    tiles = tl.cdiv(tl.cdiv(length - oldest, parts), TILE)
    start = oldest + part * tiles * TILE
    end = tl.minimum(start + tiles * TILE, length)

    heads = tl.arange(0, GROUP_PAD)
    dims = tl.arange(0, HEAD_PAD)
    first_head = (row * kv_heads + kv_head) * GROUP
    query_mask = (heads[:, None] < GROUP) & (dims[None, :] < HEAD)
    q = tl.load(
        query + (first_head + heads[:, None]) * HEAD + dims[None, :], mask=query_mask, other=0.0
    )
    result, largest, total = _attend_keys(
        q, keys, values, table, start, end, kv_head, kv_heads, scale, softcap,
        SOFTCAP, BLOCK, TILE, HEAD, HEAD_PAD, GROUP_PAD,
    )  # fmt: skip
    if not SPLIT:
        if HAS_SINKS:
            own = kv_head * GROUP + heads
            sink = tl.load(sinks + own, mask=heads < GROUP, other=0.0).to(tl.float32)
            larger = tl.maximum(largest, sink)
            shrink = tl.exp(largest - larger)
            total = total * shrink + tl.exp(sink - larger)
            result = result * shrink[:, None]
        result = result / total[:, None]
        at = (first_head + heads[:, None]) * HEAD + dims[None, :]
        tl.store(sums + at, result.to(sums.dtype.element_ty), mask=query_mask)
        return
    empty = total == 0.0
    result = result / tl.where(empty, 1.0, total)[:, None]
    log = tl.where(empty, float("-inf"), largest + tl.log(tl.where(empty, 1.0, total)))
    at_part = (first_head + heads) * parts + part
    tl.store(logs + at_part, log, mask=heads < GROUP)
    tl.store(sums + at_part[:, None] * HEAD + dims[None, :], result, mask=query_mask)


@triton.jit
def _attend_keys(
    q,
    keys,
    values,
    table,
    start,
    end,
    kv_head,
    kv_heads,
    scale,
    softcap,
    SOFTCAP: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    GROUP_PAD: tl.constexpr,
):
    """The running softmax over keys [start, end): weighted values, largest score, sum of weights."""
    dims = tl.arange(0, HEAD_PAD)
    largest = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    result = tl.zeros([GROUP_PAD, HEAD_PAD], tl.float32)
    for tile in range(start, end, TILE):
        positions = tile + tl.arange(0, TILE)
        inside = positions < end
        blocks = tl.load(table + positions // BLOCK, mask=inside, other=0)
        places = (blocks * BLOCK + positions % BLOCK) * kv_heads + kv_head
        at = places[:, None] * HEAD + dims[None, :]
        mask = inside[:, None] & (dims[None, :] < HEAD)
        k = tl.load(keys + at, mask=mask, other=0.0)
        v = tl.load(values + at, mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if SOFTCAP:
            # tanh(x) = 1 - 2 / (exp(2x) + 1), which no large x can overflow into NaN
            scores = softcap * (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0))
        scores = tl.where(inside[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        result = result * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = larger
    return result, largest, total


@triton.jit(do_not_specialize=["parts"])
def _join_parts(
    sums,
    logs,
    sinks,
    output,
    heads,
    parts,
    EARLY: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    MOST: tl.constexpr,
    HEAD: tl.constexpr,
    HEAD_PAD: tl.constexpr,
) -> None:
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    head = tl.program_id(1)
    at = tl.program_id(0) * heads + head
    part = tl.arange(0, MOST)
    dims = tl.arange(0, HEAD_PAD)
    log = tl.load(logs + at * parts + part, mask=part < parts, other=float("-inf"))
    largest = tl.max(log, 0)
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        largest = tl.maximum(largest, sink)
    weights = tl.exp(log - largest)
    total = tl.sum(weights, 0)
    if HAS_SINKS:
        total += tl.exp(sink - largest)
    seen = tl.load(
        sums + (at * parts + part[:, None]) * HEAD + dims[None, :],
        mask=(part[:, None] < parts) & (dims[None, :] < HEAD),
        other=0.0,
    )
    result = tl.sum(seen * weights[:, None], 0) / total
    tl.store(output + at * HEAD + dims, result.to(output.dtype.element_ty), mask=dims < HEAD)
