"""The small operations of a decoder layer, each one kernel on a GPU, with its plain reference.

They compute as transformers' modules do, but round once where those round after each step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llmkernel.worker.kernels import launch
from llmkernel.worker.kernels.paged_attention import Pool, write_kv

_HEADS_A_BLOCK = 8
_WIDTH_STEP = 8
_THREADS = 256


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x * rsqrt(mean(x^2) + eps) * weight over the last dimension of `x` [tokens, width]."""
    if x.device.type != "cuda" or x.shape[1] % _WIDTH_STEP:
        return _normalised(x, weight, eps)
    return rms_norm_on_gpu(x, weight, eps)


def rms_norm_on_gpu(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm` by its kernel, for a width that is a multiple of 8."""
    count, width = x.shape
    output = torch.empty_like(x)
    threads = min(512, 32 * math.ceil(width / _WIDTH_STEP / 32))
    launch.kernel("rms_norm", x.dtype)((count, 1), threads, [x, weight, output, width, eps])
    return output


def rotary(
    positions: Tensor, frequencies: Tensor, scaling: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [tokens, head_dim] of `positions` [tokens] int64, as `rope_write` takes them.

    `frequencies` [head_dim / 2] are float32 radians a position; all is multiplied by `scaling`.
    """
    if positions.device.type != "cuda":
        angles = positions.float()[:, None] * frequencies
        angles = torch.cat((angles, angles), -1)
        return (angles.cos() * scaling).to(dtype), (angles.sin() * scaling).to(dtype)
    return rotary_on_gpu(positions, frequencies, scaling, dtype)


def rotary_on_gpu(
    positions: Tensor, frequencies: Tensor, scaling: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`rotary` by its kernel."""
    count, half = positions.shape[0], frequencies.shape[0]
    both = torch.empty(2, count, 2 * half, dtype=dtype, device=positions.device)
    launch.kernel("rotary", dtype)(
        (math.ceil(count * half / _THREADS), 1),
        _THREADS,
        [positions, frequencies, scaling, both[0], both[1], count, half],
    )
    return both[0], both[1]


def rope_write(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    slots: Tensor,
    norms: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Rotate queries and keys, put keys and values into their slots; returns the queries.

    `merged` [tokens, (query_heads + 2 * kv_heads) * head_dim] is what the projections of
    queries, keys and values give. `rotary` are the cosines and sines [tokens, head_dim] of the
    positions, for pairs of dimensions i and i + head_dim / 2 (Su et al. 2021, in the layout of
    GPT-NeoX). `slots` [tokens] int64 belong to `pool`. `norms` are weights [head_dim] of an RMS
    norm of each query and key head, and its eps. The result is [tokens, query_heads, head_dim].
    """
    if merged.device.type != "cuda":
        by_head = merged.view(merged.shape[0], -1, pool.keys.shape[3])
        return _roped(by_head, rotary, pool, slots, norms)
    return rope_write_on_gpu(merged, rotary, pool, slots, norms)


def rope_write_on_gpu(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    slots: Tensor,
    norms: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """`rope_write` by its kernel."""
    kv_heads, head_dim = pool.keys.shape[2:]
    count, heads = merged.shape[0], merged.shape[1] // head_dim
    query_heads = heads - 2 * kv_heads
    query = torch.empty(count, query_heads, head_dim, dtype=merged.dtype, device=merged.device)
    query_norm, key_norm, eps = norms or (None, None, 0.0)
    launch.kernel("rope_write", merged.dtype, dim=head_dim)(
        (math.ceil(count * heads / _HEADS_A_BLOCK), 1),
        32 * _HEADS_A_BLOCK,
        [
            merged, *rotary, query_norm, key_norm, eps, slots, query, pool.keys, pool.values,
            count, query_heads, kv_heads,
        ],
    )  # fmt: skip
    return query


def _roped(
    merged: Tensor,
    rotary: tuple[Tensor, Tensor],
    pool: Pool,
    slots: Tensor,
    norms: tuple[Tensor, Tensor, float] | None,
) -> Tensor:
    kv_heads = pool.keys.shape[2]
    query, key, value = torch.split(merged, [merged.shape[1] - 2 * kv_heads, kv_heads, kv_heads], 1)
    if norms is not None:
        query = _normalised(query, norms[0], norms[2])
        key = _normalised(key, norms[1], norms[2])
    query, key = _rotated(query, *rotary), _rotated(key, *rotary)
    write_kv(key, value, pool, slots)
    return query


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.float().chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return (x.float() * cosines.float()[:, None] + turned * sines.float()[:, None]).to(x.dtype)


def _normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)
