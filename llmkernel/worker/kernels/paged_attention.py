"""Paged attention in plain torch: the reference, and what runs where no faster kernel does.

Keys and values of a layer live in two pools of shape `[blocks, block_size, kv_heads,
head_dim]`. A *slot* is one token's place in a pool: `block * block_size + offset`.
Block 0 takes the writes of padding rows; the last block is never written and stays
zero, so that positions beyond a row's length can be read as zeros: a stale NaN of
an earlier owner times a weight of zero would still be NaN.

Three functions make the interface that another kernel has to serve:

    write_kv(key, value, pool, slot_mapping)
    decode_attention(query, pool, rows, options)    one query per row, shapes fixed by the bucket
    prefill_attention(query, pool, row, options)    many queries of one row, or of all `Chunks`

Nothing here asks the device for a value, and everything that `decode_attention` reads
from the step is a tensor whose shape depends on the batch and on the width of the
block table only, so the decode step can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_GATHER_ELEMENTS = 2**18
"""On the CPU rows are attended in groups whose gathered keys stay in the cache (1 MiB of float32)."""
_SCORE_ELEMENTS = 2**25
"""Where scores must exist as a tensor, queries are taken in slices of at most this many scores."""


class Pool(NamedTuple):
    """Keys and values of one layer, each `[blocks, block_size, kv_heads, head_dim]`."""

    keys: Tensor
    values: Tensor

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.keys.shape[1]

    @property
    def zero_slot(self) -> int:
        """A slot that always holds zeros."""
        return self.keys.shape[0] * self.block_size - 1

    def gather(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots` [...] as two tensors [..., kv_heads, head_dim]."""
        shape = (*slots.shape, *self.keys.shape[2:])
        flat = slots.reshape(-1)
        keys = self.keys.flatten(0, 1).flatten(1).index_select(0, flat)
        values = self.values.flatten(0, 1).flatten(1).index_select(0, flat)
        return keys.view(shape), values.view(shape)


class Options(NamedTuple):
    """What a layer asks of attention beyond causality.

    `window`: a query sees this many tokens, itself included; None is all of them.
    `softcap`: scores become softcap * tanh(score / softcap).
    `sinks` [query_heads]: a logit that takes part in the softmax and has no value.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether torch's fused attention computes it."""
        return self.softcap is None and self.sinks is None


@dataclass(slots=True, eq=False)
class DecodeRows:
    """The rows of a step with one query each.

    `tables` [slots, columns] int64: block ids by sequence slot; beyond a sequence's length lies
    anything that is an id. `slots` [rows] int64: the slot of each row. `context_lens` [rows]
    int64: tokens to attend to, the query's own included; at least 1. No row reaches beyond
    the first `width` columns. `apart` says that none attends to what another one's step writes,
    as one does that is a token of the same prompt.
    """

    tables: Tensor
    slots: Tensor
    context_lens: Tensor
    width: int
    apart: bool = False
    _plans: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def gather_plan(self, pool: Pool, window: int | None) -> tuple[Tensor, Tensor]:
        """Slots [rows, S] to read and the bias [rows, 1, 1, S] that hides the padding.

        S is the width in tokens, or the window where that is less. Made once
        a step for all layers of the same window.
        """
        width = self.width * pool.block_size
        span = min(width, window or width)
        if span not in self._plans:
            self._plans[span] = self._plan(pool, span)
        return self._plans[span]

    def _plan(self, pool: Pool, span: int) -> tuple[Tensor, Tensor]:
        lengths = self.context_lens[:, None]
        offsets = torch.arange(span, device=lengths.device)
        positions = (lengths - span).clamp(min=0) + offsets
        tables = self.tables[:, : self.width].index_select(0, self.slots)
        slots = slots_of(tables, positions, pool.block_size)
        hidden = positions >= lengths
        bias = torch.zeros(hidden.shape, dtype=pool.keys.dtype, device=lengths.device)
        bias.masked_fill_(hidden, float("-inf"))
        return slots.masked_fill(hidden, pool.zero_slot), bias[:, None, None, :]


@dataclass(slots=True, eq=False)
class PrefillRow:
    """A row of a step with many queries: tokens [start, start + count) of one sequence.

    Its queries are `[first, first + count)` of the packed step. `block_table` [width]
    int64 covers start + count tokens, which are all written when attention runs.
    """

    first: int
    count: int
    start: int
    block_table: Tensor
    _plans: dict[int | None, tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def gather_plan(self, pool: Pool, window: int | None) -> tuple[Tensor, Tensor | None]:
        """Slots [S] of the tokens in sight and the bias [count, S], None for plain causality.

        Made once a step for all layers of the same window.
        """
        if window not in self._plans:
            self._plans[window] = self._plan(pool, window)
        return self._plans[window]

    def bias(self, positions: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
        """Zero where the chunk's queries [count] see the keys at `positions` [S], else -inf."""
        queries = positions[-self.count :, None]
        hidden = positions > queries
        if window is not None:
            hidden |= positions <= queries - window
        bias = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
        return bias.masked_fill_(hidden, float("-inf"))

    def _plan(self, pool: Pool, window: int | None) -> tuple[Tensor, Tensor | None]:
        end = self.start + self.count
        oldest = max(0, self.start - window + 1) if window else 0
        positions = torch.arange(oldest, end, device=self.block_table.device)
        slots = slots_of(self.block_table[None], positions[None], pool.block_size)[0]
        if self.start == 0 and (window is None or window >= end):
            return slots, None
        return slots, self.bias(positions, pool.keys.dtype, window)


@dataclass(slots=True, eq=False)
class Chunks:
    """All prefill rows of a step as tensors, for a kernel that takes them together.

    `tables` [slots, columns] int64 and `slots` [rows] int64 as in `DecodeRows`. `lengths` [rows]
    int64: tokens from the beginning of the sequence to the end of the chunk. `begins`
    [rows + 1] int64: where each chunk's queries begin among those of all chunks, and where the
    last ones end. The host knows the most tokens of a chunk, `longest`, and the largest of the
    lengths, `furthest`.
    """

    tables: Tensor
    slots: Tensor
    lengths: Tensor
    begins: Tensor
    longest: int
    furthest: int


@dataclass(slots=True, eq=False)
class PagedStep:
    """What attention has to know about a step; one object for all layers.

    The packed step holds the decode rows' tokens first. `slot_mapping` [tokens] int64
    says where each token's key and value go. `chunks` is `prefill` once more, for kernels.
    """

    slot_mapping: Tensor
    decode: DecodeRows | None
    prefill: list[PrefillRow]
    chunks: Chunks | None = None


DecodeAttention = Callable[[Tensor, Pool, DecodeRows, Options], Tensor]
PrefillAttention = Callable[[Tensor, Pool, Chunks, Options], Tensor]


def slots_of(block_tables: Tensor, positions: Tensor, block_size: int) -> Tensor:
    """Slots [rows, S] of `positions` [rows, S] under `block_tables` [rows, width].

    Positions beyond the table give the slots of its last block.
    """
    column = (positions // block_size).clamp(max=block_tables.shape[1] - 1)
    column = column.expand(block_tables.shape[0], -1)
    return block_tables.gather(1, column) * block_size + positions % block_size


def write_kv(key: Tensor, value: Tensor, pool: Pool, slot_mapping: Tensor) -> None:
    """Put `key` and `value` [tokens, kv_heads, head_dim] into the slots [tokens] of the pool."""
    pool.keys.flatten(0, 1).index_copy_(0, slot_mapping, key)
    pool.values.flatten(0, 1).index_copy_(0, slot_mapping, value)


def paged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pool: Pool,
    step: PagedStep,
    options: Options,
    decode: DecodeAttention | None = None,
    prefill: PrefillAttention | None = None,
) -> Tensor:
    """One layer's attention for a packed step: write, then attend row by row.

    `query` [tokens, query_heads, head_dim], `key` and `value` [tokens, kv_heads, head_dim];
    returns the shape and dtype of `query`. `decode` stands in for `decode_attention`, and
    `prefill` for `prefill_attention` of row after row where the step has its `chunks`.
    """
    write_kv(key, value, pool, step.slot_mapping)
    return attend(query, pool, step, options, decode, prefill)


def attend(
    query: Tensor,
    pool: Pool,
    step: PagedStep,
    options: Options,
    decode: DecodeAttention | None = None,
    prefill: PrefillAttention | None = None,
) -> Tensor:
    """`paged_attention` of a step whose keys and values are written."""
    decode = decode or decode_attention
    parts = []
    rows = 0
    if step.decode is not None:
        rows = step.decode.context_lens.shape[0]
        parts.append(decode(query[:rows], pool, step.decode, options))
    if prefill is not None and step.chunks is not None:
        parts.append(prefill(query[rows:], pool, step.chunks, options))
    else:
        for row in step.prefill:
            chunk = query[row.first : row.first + row.count]
            parts.append(prefill_attention(chunk, pool, row, options))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def decode_attention(query: Tensor, pool: Pool, rows: DecodeRows, options: Options) -> Tensor:
    """Attention of one query per row: `query` [rows, query_heads, head_dim] to the same shape.

    Query heads that share a key head are taken as the queries of that head, so keys are
    never repeated.
    """
    slots, bias = rows.gather_plan(pool, options.window)
    count, span = slots.shape
    kv_heads, head_dim = pool.keys.shape[2:]
    grouped = query.reshape(count, kv_heads, -1, head_dim)
    step = count
    if query.device.type == "cpu":
        step = max(1, _GATHER_ELEMENTS // (span * kv_heads * head_dim))
    parts = []
    for first in range(0, count, step):
        some = slice(first, first + step)
        keys, values = pool.gather(slots[some])
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        parts.append(_decode_group(grouped[some], keys, values, bias[some], options))
    output = parts[0] if len(parts) == 1 else torch.cat(parts)
    return output.reshape(query.shape)


def _decode_group(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, options: Options
) -> Tensor:
    if options.plain:
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=bias, scale=options.scale
        )
    scores = query @ keys.transpose(2, 3)
    sinks = None
    if options.sinks is not None:
        sinks = options.sinks.view(1, query.shape[1], query.shape[2], 1)
    return _probabilities(scores, bias, options, sinks).to(values.dtype) @ values


def prefill_attention(query: Tensor, pool: Pool, row: PrefillRow, options: Options) -> Tensor:
    """Attention of one row's chunk: `query` [count, query_heads, head_dim] to the same shape.

    Reads everything from the pool, the chunk's own keys included.
    """
    slots, bias = row.gather_plan(pool, options.window)
    keys, values = pool.gather(slots)
    kv_heads = keys.shape[1]
    keys, values = keys.transpose(0, 1), values.transpose(0, 1)
    # [kv_heads, group, count, head_dim]: key heads play the batch, so that one key head
    # serves its group by a stride of zero instead of a copy
    grouped = query.transpose(0, 1).reshape(kv_heads, -1, *query.shape[::2])
    if options.plain:
        shape = (-1, grouped.shape[1], -1, -1)
        keys, values = keys[:, None].expand(shape), values[:, None].expand(shape)
        if query.device.type == "cuda":
            # heads of stride zero are wrong there where a tile has one query (pytorch#192138)
            keys, values = keys.contiguous(), values.contiguous()
        output = functional.scaled_dot_product_attention(
            grouped,
            keys,
            values,
            attn_mask=bias,
            is_causal=bias is None,
            scale=options.scale,
        )
    else:
        if bias is None:
            bias = row.bias(torch.arange(row.count, device=query.device), keys.dtype, None)
        output = _prefill_scored(grouped, keys, values, bias, options)
    return output.flatten(0, 1).transpose(0, 1)


def _prefill_scored(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, options: Options
) -> Tensor:
    kv_heads, group, count, _ = query.shape
    step = max(1, _SCORE_ELEMENTS // (kv_heads * group * keys.shape[1]))
    sinks = None
    if options.sinks is not None:
        sinks = options.sinks.view(kv_heads, group, 1, 1)
    parts = []
    for first in range(0, count, step):
        some = query[:, :, first : first + step]
        scores = (some.flatten(1, 2) @ keys.transpose(1, 2)).view(
            kv_heads, group, -1, keys.shape[1]
        )
        weights = _probabilities(scores, bias[first : first + step], options, sinks)
        output = weights.to(values.dtype).flatten(1, 2) @ values
        parts.append(output.view(some.shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _probabilities(scores: Tensor, bias: Tensor, options: Options, sinks: Tensor | None) -> Tensor:
    """Softmax in float32 over scores [..., S], soft-capped, hidden by `bias`, drained by sinks."""
    scores = scores.float() * options.scale
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    scores = scores + bias
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)
    return torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
