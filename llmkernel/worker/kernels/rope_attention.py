"""Attention of decode rows in one kernel: rotation, the write of key and value, and the join of parts.

Between the projections and the output's there are then no launches but this, which at few rows
take longer than what they compute. The plain reference is `layer.rope_write`, then
`paged_attention.decode_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llmkernel.worker.kernels import four_bit, launch, layer
from llmkernel.worker.kernels.paged_attention import (
    DecodeRows,
    Options,
    Pool,
    decode_attention,
)

_HEAD_DIMS = (64, 128, 256)
_MOST_GROUP = 8
"""Query heads of a key head: their sums are in registers."""
_BLOCKS = 256
"""Blocks that keep a large GPU busy and have room on it side by side."""
_MOST_PARTS = 32
_THREADS = 128


def serves(query_heads: int, pool: Pool) -> bool:
    """Whether the kernel is made for such heads."""
    kv_heads, head_dim = pool.keys.shape[2:]
    return head_dim in _HEAD_DIMS and query_heads // kv_heads <= _MOST_GROUP


def rope_attention(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    slots: Tensor,
    rows: DecodeRows,
    options: Options,
    norms: tuple[Tensor, Tensor, float] | None = None,
    parts: int = 0,
) -> Tensor:
    """Attention [rows, query_heads, head_dim] of one query per row, none of them of one sequence.

    `merged`, `rotary`, `pool`, `slots` and `norms` as in `layer.rope_write`; `rows` and `options`
    as in `decode_attention`, the rows' own tokens included. `parts` of each row, up to
    32, are chosen by the number of rows where it is 0. Enqueues one kernel and waits for nothing.
    """
    kv_heads, head_dim = pool.keys.shape[2:]
    count, heads = merged.shape[0], merged.shape[1] // head_dim - 2 * kv_heads
    if merged.device.type != "cuda":
        query = layer.rope_write(merged, rotary, pool, slots, norms)
        return decode_attention(query, pool, rows, options)
    parts = parts or _parts(count * kv_heads)
    output = torch.empty(count, heads, head_dim, dtype=merged.dtype, device=merged.device)
    size = parts * count * heads if parts > 1 else 0
    sums = torch.empty(size * head_dim, dtype=torch.float32, device=merged.device)
    logs = torch.empty(size * 2, dtype=torch.float32, device=merged.device)
    query_norm, key_norm, eps = norms or (None, None, 0.0)
    kernel = launch.kernel(
        "rope_attention",
        merged.dtype,
        dim=head_dim,
        group=heads // kv_heads,
        block=pool.block_size,
        parts=parts,
    )
    kernel(
        (count * kv_heads, parts),
        _THREADS,
        [
            merged, *rotary, query_norm, key_norm, eps, slots, rows.tables, rows.slots,
            rows.context_lens, rows.tables.stride(0), pool.keys, pool.values, options.sinks,
            options.scale, options.softcap or 0.0, options.window or 0, output, sums, logs,
            four_bit.counters(merged.device), kv_heads,
        ],
    )  # fmt: skip
    return output


def _parts(programs: int) -> int:
    """Parts of each row, a power of two, that fill the device together with the rows."""
    parts = 1
    while parts < _MOST_PARTS and 2 * parts * programs <= _BLOCKS:
        parts *= 2
    return parts
