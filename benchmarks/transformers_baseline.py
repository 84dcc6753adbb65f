"""transformers' own `generate` on the model, prompts and machine of a benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.prompts import Prompts
from benchmarks.streams import Row


class Baseline:
    """The model as transformers loads it: its default attention, its own cache.

    On a GPU where there is one; in float32 or, `four_bit`, as bitsandbytes' NF4 over bfloat16.
    """

    def __init__(self, folder: Path, threads: int | None = None, *, four_bit: bool = False) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        from llmkernel.worker import quantization

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if threads is not None:
            torch.set_num_threads(threads)
        dtype = torch.bfloat16 if four_bit else torch.float32
        # transformers left alone would keep Falcon's layers in 16 bits
        with quantization.convertible(AutoConfig.from_pretrained(folder)):
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                device_map={"": "cuda:0" if four_bit and torch.cuda.is_available() else "cpu"},
                quantization_config=_four_bit(dtype) if four_bit else None,
            )  # in evaluation mode already
        quantised = any(type(module).__name__ == "Linear4bit" for module in self.model.modules())
        assert quantised == four_bit, "the layers are not what was asked for"
        # no end of sequence, instead of a floor on the length, which would cost work per token
        self.model.generation_config.eos_token_id = None

    def batched(self, prompts: list[list[int]], new_tokens: int) -> list[Row]:
        """Times of one call of `generate` over all prompts, padded on the left."""
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        stamps = [time.perf_counter()]
        made = self._generate(ids, mask, new_tokens, stamps)
        assert made.shape == (len(prompts), width + new_tokens), "a row ended early"
        return [stamps] * len(prompts)

    def one_by_one(self, prompts: list[list[int]], new_tokens: int) -> list[Row]:
        """Times of one call after the other."""
        return [row for prompt in prompts for row in self.batched([prompt], new_tokens)]

    def _generate(
        self, ids: torch.Tensor, mask: torch.Tensor, new_tokens: int, stamps: Row
    ) -> torch.Tensor:
        def stamp(rows: torch.Tensor, _scores: object) -> torch.Tensor:
            # called after each step; only after the first one must all of its work be done
            if len(stamps) == 1:
                self._wait()
            stamps.append(time.perf_counter())
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)

        with torch.inference_mode():
            made: torch.Tensor = self.model.generate(
                ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                do_sample=False,
                max_new_tokens=new_tokens,
                pad_token_id=0,
                stopping_criteria=[stamp],
            )
        self._wait()
        stamps[-1] = time.perf_counter()
        return made

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


def measure(
    folder: Path, vocabulary: int, widths: list[int], prompt_tokens: int, new_tokens: int
) -> dict[int, list[Row]]:
    """Times of NF4 at each width, after a short warm round of the same width."""
    baseline = Baseline(folder, four_bit=True)
    prompts = Prompts(vocabulary)
    found = {}
    for width in widths:
        baseline.batched(prompts.several(width, prompt_tokens), 2)
        found[width] = baseline.batched(prompts.several(width, prompt_tokens), new_tokens)
    return found


def _four_bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
