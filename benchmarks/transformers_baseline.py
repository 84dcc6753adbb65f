"""transformers' own `generate` on the model, prompts and machine of a benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch


class Baseline:
    """The model as transformers loads it: float32, its default attention, its own cache."""

    def __init__(self, folder: Path, threads: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        # no end of sequence, instead of a floor on the length, which would cost work per token
        self.model.generation_config.eos_token_id = None

    def batched(self, prompts: list[list[int]], new_tokens: int) -> float:
        """Tokens/s of one call of `generate` over all prompts, padded on the left."""
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        began = time.perf_counter()
        made = self._generate(ids, mask, new_tokens)
        taken = time.perf_counter() - began
        assert made.shape == (len(prompts), width + new_tokens), "a row ended early"
        return len(prompts) * new_tokens / taken

    def one_by_one(self, prompts: list[list[int]], new_tokens: int) -> float:
        """Tokens/s of one call after the other."""
        began = time.perf_counter()
        for prompt in prompts:
            ids = torch.tensor([prompt])
            self._generate(ids, torch.ones_like(ids), new_tokens)
        return len(prompts) * new_tokens / (time.perf_counter() - began)

    def _generate(self, ids: torch.Tensor, mask: torch.Tensor, new_tokens: int) -> torch.Tensor:
        with torch.inference_mode():
            made: torch.Tensor = self.model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=new_tokens,
                pad_token_id=0,
            )
        return made
