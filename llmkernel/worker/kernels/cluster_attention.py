"""Rotation and attention of decode rows in one kernel, for GPUs with clusters (9.0 and up).

Three launches a layer become one: of few rows each of them is little more than its start and its
end. The plain reference is `layer.rope_write` and then `paged_attention.decode_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from llmkernel.worker.kernels import launch
from llmkernel.worker.kernels.layer import HeadNorms
from llmkernel.worker.kernels.paged_attention import DecodeRows, Options, PagedStep, Pool
from llmkernel.worker.kernels.plans import processors

HEAD_DIMS = (64, 128)
"""Dimensions of a head that are shared out evenly among the lanes of a warp."""
MOST_GROUP = 8
"""Query heads of a key head whose queries and sums fit into registers."""
MOST_CLUSTER = 8
"""Blocks that every GPU with clusters can have in one."""
_WARPS = 4
_TILE = 16
"""Tokens that a warp takes at a time, all of one block."""
_CARVEOUT = 50
"""Percent of the L1 as shared memory. What is on its way from memory takes room in the rest of it,
and products before this kernel leave little."""


RopedAttention = Callable[
    [Tensor, tuple[Tensor, Tensor], Pool, Tensor, DecodeRows, Options, HeadNorms | None], Tensor
]


def serves(step: PagedStep, pool: Pool, width: int) -> bool:
    """Whether there is a kernel for a step whose merged projections are `width` wide."""
    rows = step.decode
    if rows is None or not rows.apart or rows.context_lens.shape != step.slot_mapping.shape:
        return False
    return _fits(pool, width)


def kernels_of(pool: Pool, width: int, *, normed: bool) -> Iterator[tuple[str, dict[str, int]]]:
    """Name and sizes of each kernel that `roped_attention` may launch, for `launch.keep`.

    `width` is that of the merged projections; `normed` says that heads have norms of their own.
    """
    cluster = MOST_CLUSTER if _fits(pool, width) else 0
    while cluster:
        yield "cluster_attention", _sizes(pool, _group(pool, width), cluster, normed=normed)
        cluster //= 2


def _fits(pool: Pool, width: int) -> bool:
    group = _group(pool, width)
    return pool.keys.shape[3] in HEAD_DIMS and group <= MOST_GROUP and pool.block_size % _TILE == 0


def _group(pool: Pool, width: int) -> int:
    kv_heads, head_dim = pool.keys.shape[2:]
    return width // head_dim // kv_heads - 2


def _sizes(pool: Pool, group: int, cluster: int, *, normed: bool) -> dict[str, int]:
    sizes = {"cluster": cluster, "warps": _WARPS, "dim": pool.keys.shape[3], "group": group}
    return sizes | {"block": pool.block_size} | ({"norms": 1} if normed else {})


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
    count, group = merged.shape[0], _group(pool, merged.shape[1])
    cluster = cluster or _cluster(count * kv_heads, processors(merged.device))
    shared = 16 + 4 * _WARPS * group * (head_dim + 2 * cluster)
    query_norm, key_norm, eps = norms or (None, None, 0.0)
    output = torch.empty(
        count, group * kv_heads, head_dim, dtype=merged.dtype, device=merged.device
    )
    sizes = _sizes(pool, group, cluster, normed=norms is not None)
    kernel = launch.kernel("cluster_attention", merged.dtype, shared, _CARVEOUT, **sizes)
    kernel(
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


def _cluster(rows: int, processors: int) -> int:
    """Blocks for each of `rows` and key head: a power of two that fills the device once.

    Two blocks of one multiprocessor would leave the next kernel no room to start early.
    """
    cluster = 1
    while cluster < MOST_CLUSTER and 2 * cluster * rows <= processors:
        cluster *= 2
    return cluster
