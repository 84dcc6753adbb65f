"""Per-sequence sampling state on the device: tables indexed by slot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as AbstractSequence

import torch


def upload(
    values: AbstractSequence[float], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A new device tensor. From pinned memory on a GPU: a pageable copy would wait for the stream."""
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class SparseTable:
    """A few (token id, value) pairs for each slot, padded with (0, 0.0)."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._device = device
        self._ids = torch.zeros(slots, 1, dtype=torch.int64, device=device)
        self._values = torch.zeros(slots, 1, device=device)

    def set(self, slot: int, pairs: Mapping[int, float]) -> None:
        """Replace the pairs of a slot."""
        self._widen(len(pairs))
        padding = [0] * (self._ids.shape[1] - len(pairs))
        self._ids[slot] = upload([*pairs, *padding], torch.int64, self._device)
        self._values[slot] = upload([*pairs.values(), *padding], torch.float32, self._device)

    def add_to(self, scores: torch.Tensor, slots: torch.Tensor) -> None:
        """Add the values of `slots` [R] to `scores` float32 [R, V]; ids must be below V."""
        scores.scatter_add_(1, self._ids[slots], self._values[slots])

    def _widen(self, width: int) -> None:
        have = self._ids.shape[1]
        if width > have:
            more = (0, max(width, 2 * have) - have)
            self._ids = torch.nn.functional.pad(self._ids, more)
            self._values = torch.nn.functional.pad(self._values, more)


class SeenTokens:
    """Which tokens were in the prompt and how often each was generated, for each slot."""

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._prompt = torch.zeros(slots, vocab_size, dtype=torch.bool, device=device)
        self._counts = torch.zeros(slots, vocab_size, dtype=torch.int32, device=device)

    def set(self, slot: int, prompt: AbstractSequence[int], output: Iterable[int]) -> None:
        """Start a slot over with these tokens."""
        prompt_ids = upload(list(prompt), torch.int64, self._device)
        output_ids = upload(list(output), torch.int64, self._device)
        self._prompt[slot].zero_().index_fill_(0, prompt_ids, True)
        ones = torch.ones_like(output_ids, dtype=torch.int32)
        self._counts[slot].zero_().index_add_(0, output_ids, ones)

    def add(self, slots: torch.Tensor, tokens: torch.Tensor) -> None:
        """Count one generated token for each of `slots`; negative ones are not counted."""
        counted = (tokens >= 0).to(torch.int32)
        self._counts.index_put_((slots, tokens.clamp_min(0)), counted, accumulate=True)

    def rows(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt bool [R, V] and counts int32 [R, V]."""
        return self._prompt[slots], self._counts[slots]
