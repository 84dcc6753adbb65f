"""The likeliest token of each row of logits."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from llmkernel.worker.kernels import rows
from llmkernel.worker.sequence import NO_TOKEN


def greedy_tokens(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row of `logits` [R, V], int64 [R]; NO_TOKEN for a broken row.

    Waits for nothing and depends on no parameter, so that a graph may end with it. On the CPU
    numpy finds it in a tenth of torch's time.
    """
    if logits.is_cpu and logits.dtype is torch.float32:
        return torch.from_numpy(_with_numpy(logits.numpy()))
    if rows.finds_likeliest(logits):
        return rows.likeliest_on_gpu(logits)
    largest, places = _largest(logits)  # which hands NaN on
    return torch.where(largest.isfinite(), places, NO_TOKEN)


def _with_numpy(scores: np.ndarray) -> np.ndarray:
    """Few calls, since each is cold by the time that a step comes to it."""
    found: np.ndarray = scores.argmax(-1)
    sound = [math.isfinite(scores.item(place)) for place in enumerate(found.tolist())]
    return found if all(sound) else np.where(sound, found, NO_TOKEN)


def _largest(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest number of each row of `scores` [R, V] and the first place that has it.

    NaN counts as largest. A GPU gives a row to one block of threads, so rows are cut first:
    40 us become 17 for 128,256.
    """
    parts = _parts(scores.shape[1]) if scores.is_cuda else 1
    values, places = scores.reshape(scores.shape[0], parts, -1).max(-1)
    if parts == 1:
        return values[:, 0], places[:, 0]
    largest, part = values.max(-1)
    place = places.gather(1, part[:, None])[:, 0]
    return largest, place.add_(part, alpha=scores.shape[1] // parts)


@functools.cache
def _parts(width: int) -> int:
    """The divisor of `width` next to 64, or 1 where none is near."""
    divisors = (parts for parts in range(16, 257) if width % parts == 0)
    return min(divisors, key=lambda parts: abs(parts - 64), default=1)
