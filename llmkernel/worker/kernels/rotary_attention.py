"""A decode step's attention in one kernel: rotation, the write of keys and values, attention.

It stands for `layer.rope_write` and then `decode_attention`, which are its plain reference, where
every row of a step has one token. On a GPU three launches of a few microseconds each become one.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from llmkernel.worker.kernels import launch
from llmkernel.worker.kernels.paged_attention import Options, PagedStep, Pool

HEAD_DIMS = (64, 128, 256)
MOST_GROUPED = 8
"""Query heads of a key head; their queries and sums are in registers."""
_THREADS = 128
_BLOCKS = 256
"""What keeps a large GPU busy."""
_MOST_PARTS = 32


def serves(merged: Tensor, pool: Pool, step: PagedStep) -> bool:
    """Whether `rotary_attention` can take the place of the other kernels in this step."""
    kv_heads, head_dim = pool.keys.shape[2:]
    heads = merged.shape[1] // head_dim
    return (
        merged.device.type == "cuda"
        and merged.dtype in (torch.bfloat16, torch.float16)
        and step.decode is not None
        and not step.prefill
        and head_dim in HEAD_DIMS
        and heads // kv_heads - 2 <= MOST_GROUPED
    )


def rotary_attention(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    step: PagedStep,
    options: Options,
    norms: tuple[Tensor, Tensor, float] | None = None,
    parts: int = 0,
) -> Tensor:
    """Attention [rows, query_heads, head_dim] of a step of decode rows; its keys and values are written.

    `merged`, `rotary` and `norms` are those of `layer.rope_write`. The tokens of a row are in
    `parts` at most, by the number of rows where it is 0. Enqueues one kernel and waits for nothing.
    """
    rows = step.decode
    assert rows is not None, "`serves` says so"
    kv_heads, head_dim = pool.keys.shape[2:]
    count, group = merged.shape[0], merged.shape[1] // head_dim // kv_heads - 2
    parts = parts or min(_MOST_PARTS, max(1, _BLOCKS // (count * kv_heads)))
    output = merged.new_empty(count, kv_heads * group, head_dim)
    sums = marks = None
    if parts > 1:
        sums = merged.new_empty(output.numel() * parts, dtype=torch.float32)
        marks = merged.new_empty(count * kv_heads * group * parts * 2, dtype=torch.float32)
    query_norm, key_norm, eps = norms or (None, None, 0.0)
    sinks = None if options.sinks is None else options.sinks.float()
    sizes = {"dim": head_dim, "group": group, "block": pool.block_size}
    launch.kernel("rotary_attention", merged.dtype, **sizes)(
        (count * kv_heads, parts),
        _THREADS,
        [
            merged, *rotary, query_norm, key_norm, eps, pool.keys, pool.values, rows.tables,
            rows.slots, rows.context_lens, step.slot_mapping, sinks, output, sums, marks,
            _counters(merged.device, count * kv_heads) if parts > 1 else None,
            rows.tables.stride(0), kv_heads, options.scale, options.softcap or 0.0,
            options.window or 0,
        ],
    )  # fmt: skip
    return output


def _counters(device: torch.device, needed: int) -> Tensor:
    """Of parts that are done; the kernel leaves them at zero. Few rows have several parts."""
    assert needed < _BLOCKS, "more rows than that are in one part"
    return _zeros(device)


@functools.cache
def _zeros(device: torch.device) -> Tensor:
    return torch.zeros(_BLOCKS, dtype=torch.int32, device=device)
