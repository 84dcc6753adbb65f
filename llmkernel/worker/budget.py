"""The most that a worker takes on its GPU: weights, keys and values, workspaces, graphs, all of it.

torch's allocator is told to stop at the bound, less what the driver takes beside it; so what goes
beyond is out of memory for this worker, and a step ends as it does on a full GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from llmkernel.errors import InvalidRequest, NotEnoughMemory

OUTSIDE = 768 * 2**20
"""Bytes that the driver takes for a process beside torch's allocator: its context and loaded kernels."""
_FIXED = 256 * 2**20
"""Bytes for the workspaces of libraries, CUDA graphs, and what the allocator rounds up."""
_COPIES = 8
"""Intermediate results as wide as the widest layer that live at the same time, at most."""
_SCORES = 6
"""Copies of the scores in float32 that sampling makes, at most."""


class Widths(NamedTuple):
    """What the workspace of a step depends on: `matrix` are the weights of the largest layer."""

    matrix: int
    widest: int
    vocabulary: int


def bound(setting: float, total: int) -> int:
    """Bytes of a GPU of `total` bytes that the setting allows: an int is bytes, a float a share.

    Raises NotEnoughMemory where nothing is left beside what the driver takes.
    """
    allowed = min(int(total * setting) if isinstance(setting, float) else setting, total)
    if allowed <= OUTSIDE:
        raise NotEnoughMemory(
            f"gpu_memory allows {_gib(allowed)}, and the driver alone takes up to {_gib(OUTSIDE)}. "
            "Allow more.",
            needed=OUTSIDE,
            free=allowed,
        )
    return allowed


def impose(setting: float | None, device: torch.device) -> int:
    """Bound what this process takes on `device` from now on; the bytes, 0 for no bound.

    Raises InvalidRequest for a device without memory of its own, and what `bound` raises.
    """
    if device.type != "cuda":
        if setting is not None:
            raise InvalidRequest(
                f"gpu_memory bounds what is taken on a GPU, and the device is {device}. "
                "Leave it out, or choose a GPU with device.",
                field="gpu_memory",
            )
        return 0
    if setting is None:
        return 0
    total = torch.cuda.mem_get_info(device)[1]
    allowed = bound(setting, total)
    torch.cuda.set_per_process_memory_fraction((allowed - OUTSIDE) / total, device)
    return allowed


def workspace(widths: Widths, tokens: int, rows: int, item: int) -> int:
    """Bytes to leave for a step of `tokens`, `rows` of them sampled, in numbers of `item` bytes.

    Packed weights are expanded for long steps, one layer at a time.
    """
    expanded = widths.matrix * item
    results = _COPIES * tokens * widths.widest * item
    scores = _SCORES * rows * widths.vocabulary * 4
    return _FIXED + expanded + results + scores


def check(allowed: int, weights: int, beside: int) -> None:
    """Raise NotEnoughMemory where weights and `beside`, the least that is needed with them, do not fit."""
    needed = OUTSIDE + weights + beside
    if allowed and needed > allowed:
        raise NotEnoughMemory(
            f"The weights take {_gib(weights)}, and the driver, workspaces and the smallest cache "
            f"{_gib(needed - weights)} beside them: {_gib(needed)} in all, and gpu_memory allows "
            f"{_gib(allowed)}. Allow more, or take a smaller model or quantization='nf4'.",
            needed=needed,
            free=allowed,
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
