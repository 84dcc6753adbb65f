"""What a step whose tokens are rows begins and ends with: one kernel each, for what torch needs many for.

Their plain references are torch's operations in `newest.py` and `greedy.py`, which serve where these cannot.
"""

from __future__ import annotations

import functools
import logging
import math

import torch
from torch import Tensor

from llmkernel import environment
from llmkernel.worker.kernels import launch

_THREADS = 256
_STEP = 8
"""Logits that a thread reads at a time."""
_MOST_PARTS = 64
_MOST_BLOCKS = 1024
"""Of all rows together, where that leaves a row more than one."""
_MOST_ROWS = 65_535
"""As large as the second dimension of a grid may be."""
_log = logging.getLogger(__name__)


def input_ids_on_gpu(ids: Tensor, sources: Tensor, newest: Tensor) -> Tensor:
    """`ids` [tokens] int64, but `newest[sources]` where `sources` [tokens] is not negative."""
    result, count = torch.empty_like(ids), ids.shape[0]
    blocks = math.ceil(count / _THREADS)
    kernel = launch.kernel("input_ids", ids.dtype)
    kernel((blocks, 1), _THREADS, [ids, sources, newest, result, count])
    return result


def likeliest_on_gpu(
    logits: Tensor, slots: Tensor | None = None, newest: Tensor | None = None
) -> Tensor:
    """The first place of the largest of each row of `logits` [rows, width], int64 [rows].

    It is -1 where the largest is not finite, NaN being larger than all. Goes to `newest` [slots]
    at `slots` [rows], too, as 0 where it is -1.
    """
    rows, width = logits.shape
    parts = min(_MOST_PARTS, max(1, _MOST_BLOCKS // rows), math.ceil(width / _STEP / _THREADS))
    tokens, found = (logits.new_empty(n, dtype=torch.int64) for n in (rows, rows * parts))
    launch.kernel("likeliest", logits.dtype)(
        (parts, rows),
        _THREADS,
        [logits, tokens, slots, newest, found, _arrived(logits.device), width],
    )
    return tokens


def finds_likeliest(logits: Tensor) -> bool:
    """Whether `likeliest_on_gpu` serves logits like these."""
    kind = logits.dtype in (torch.bfloat16, torch.float16) and logits.is_cuda
    fits = logits.shape[1] % _STEP == 0 and logits.shape[0] <= _MOST_ROWS
    return kind and fits and logits.is_contiguous() and can_be_built("likeliest", logits.dtype)


@functools.cache
def can_be_built(name: str, dtype: torch.dtype) -> bool:
    """Whether kernels are wanted here, and this one can be compiled."""
    if not environment.own_kernels():
        return False
    try:
        launch.kernel(name, dtype)
    except RuntimeError as error:
        _log.warning("torch does what %s would: %s", name, error)
        return False
    return True


@functools.cache
def _arrived(device: torch.device) -> Tensor:
    """How many blocks of each row have come; kernels leave them at zero."""
    return torch.zeros(_MOST_ROWS, dtype=torch.int32, device=device)
