"""Rotation and attention of decode rows in one kernel, for GPUs with clusters (9.0 and up).

Three launches a layer become one: of few rows each of them is little more than its start and its
end. The plain reference is `layer.rope_write` and then `paged_attention.decode_attention`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llmkernel.worker.kernels import launch
from llmkernel.worker.kernels.layer import HeadNorms
from llmkernel.worker.kernels.paged_attention import DecodeRows, Options, PagedStep, Pool

HEAD_DIMS = (64, 128)
"""Dimensions of a head that are shared out evenly among the lanes of a warp."""
MOST_GROUP = 8
"""Query heads of a key head whose queries and sums fit into registers."""
MOST_CLUSTER = 8
"""Blocks that every GPU with clusters can have in one."""
_WARPS = 4
_TILE = 16
"""Tokens that a warp takes at a time, all of one block."""
_BLOCKS = 512
"""Blocks that keep a large GPU busy."""


RopedAttention = Callable[
    [Tensor, tuple[Tensor, Tensor], Pool, Tensor, DecodeRows, Options, HeadNorms | None], Tensor
]


def serves(step: PagedStep, pool: Pool, width: int) -> bool:
    """Whether there is a kernel for a step whose merged projections are `width` wide."""
    rows = step.decode
    if rows is None or not rows.apart or rows.context_lens.shape != step.slot_mapping.shape:
        return False
    kv_heads, head_dim = pool.keys.shape[2:]
    group = width // head_dim // kv_heads - 2
    return head_dim in HEAD_DIMS and group <= MOST_GROUP and pool.block_size % _TILE == 0


def roped_attention(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    places: Tensor,
    rows: DecodeRows,
    options: Options,
    norms: HeadNorms | None = None,
    cluster: int = 0,
) -> Tensor:
    """Rotate, write keys and values to `places`, attend: what the reference's two calls give.

    `merged`, `rotary` and `norms` are those of `layer.rope_write`, `rows` and `options` those of
    `decode_attention`. No row sees what another one writes here. `cluster` blocks share a row and
    key head, chosen by the number of rows where it is 0. The result is
    [rows, query_heads, head_dim].
    """
    kv_heads, head_dim = pool.keys.shape[2:]
    count, heads = merged.shape[0], merged.shape[1] // head_dim
    group = heads // kv_heads - 2
    cluster = cluster or _cluster(count * kv_heads)
    shared = 4 * (_WARPS * group * (head_dim + 2) + group * head_dim + 2 * group * cluster)
    query_norm, key_norm, eps = norms or (None, None, 0.0)
    output = torch.empty(
        count, group * kv_heads, head_dim, dtype=merged.dtype, device=merged.device
    )
    sizes = {"dim": head_dim, "group": group, "block": pool.block_size}
    if norms is not None:
        sizes["norms"] = 1
    launch.kernel(
        "cluster_attention",
        merged.dtype,
        shared,
        cluster=cluster,
        warps=_WARPS,
        **sizes,
    )(
        (cluster, count * kv_heads),
        32 * _WARPS,
        [
            merged, *rotary, query_norm, key_norm, eps, places, rows.tables, rows.slots,
            rows.context_lens, options.sinks, pool.keys, pool.values, output,
            rows.tables.stride(0), kv_heads, options.scale, options.softcap or 0.0,
            options.window or 0,
        ],
        shared,
    )  # fmt: skip
    return output


def _cluster(rows: int) -> int:
    """Blocks for each of `rows` and key head: a power of two that fills the device."""
    cluster = 1
    while cluster < MOST_CLUSTER and 2 * cluster * rows <= _BLOCKS:
        cluster *= 2
    return cluster
