"""What a later kernel reads first: kernels bring it to the L2 while memory would be idle.

A product that is over in a few microseconds spends most of them on its start: on blocks that
wait for their first weights. Weights depend on nothing, so the kernels before it can fetch them.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

_SHARE = 3
"""Part of the L2 that is used for this at a time; two such parts may be alive at once."""
_LEAST = 16
"""Bytes that a fetch is a multiple of."""


class Later(NamedTuple):
    """The first `weight_bytes` of weights and `scale_bytes` of scales, as kernels take them."""

    weights: Tensor | None
    weight_bytes: int
    scales: Tensor | None
    scale_bytes: int


NOTHING = Later(None, 0, None, 0)


def begin_of(weights: Tensor, scales: Tensor) -> Later:
    """As much of a packed matrix as is worth fetching early: its first rows. Nothing on the CPU."""
    if weights.device.type != "cuda":
        return NOTHING
    share = min(1.0, room(weights.device) / (weights.nbytes + scales.nbytes))
    sizes = (int(share * part.nbytes) // _LEAST * _LEAST for part in (weights, scales))
    return Later(weights, next(sizes), scales, next(sizes))


@functools.cache
def room(device: torch.device) -> int:
    """Bytes that are fetched early at a time."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) // _SHARE
