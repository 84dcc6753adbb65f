"""The newest token of each slot, on the device: what a step begins from that was launched before it was read."""

from __future__ import annotations

import torch
from torch import Tensor

from llmkernel.worker.greedy import greedy_tokens
from llmkernel.worker.kernels import rows


class NewestTokens:
    """Of `slots` slots, and of nobody's beyond them, which rows of padding have."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._ids = torch.zeros(slots + 1, dtype=torch.int64, device=device)
        self._own_kernel = device.type == "cuda" and rows.can_be_built("input_ids", torch.int64)

    def fill_in(self, ids: Tensor, sources: Tensor) -> Tensor:
        """`ids` [tokens], but the newest token of slot `sources` [tokens] where that is none below 0."""
        if self._own_kernel:
            return rows.input_ids_on_gpu(ids, sources, self._ids)
        return torch.where(sources >= 0, self._ids[sources.clamp_min(0)], ids)

    def keep(self, slots: Tensor, tokens: Tensor) -> None:
        """`tokens` [rows] are the newest of `slots` [rows] now."""
        # a broken row's NO_TOKEN is no id; its next step is dropped, and must not fail others
        self._ids.index_copy_(0, slots, tokens.clamp_min(0))

    def keep_likeliest(self, logits: Tensor, slots: Tensor) -> Tensor:
        """`greedy_tokens` of `logits` [rows, vocab_size], which are kept as those of `slots` [rows]."""
        if rows.finds_likeliest(logits):
            return rows.likeliest_on_gpu(logits, slots, self._ids)
        tokens = greedy_tokens(logits)
        self.keep(slots, tokens)
        return tokens
