"""A runner driven by hand: the smallest scheduler that can run sequences side by side."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import tiny_models
from llmkernel.params import SamplingParams
from llmkernel.worker.runner import ModelRunner
from llmkernel.worker.sequence import Request, Sequence
from llmkernel.worker.step import Row, StepBatch, StepResult

BLOCK = 16


@dataclass
class LoadedForTest:
    """What the runner needs of a loaded model."""

    model: Any
    context_length: int = tiny_models.CONTEXT
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32


def make_runner(name: str = "llama", **settings: Any) -> ModelRunner:
    """A runner over a tiny model of that variant."""
    loaded = settings.pop("loaded", {})
    loaded.setdefault("context_length", tiny_models.context_of(name))
    if "model" not in loaded:
        loaded["model"] = tiny_models.build(name)
    settings = {
        "num_blocks": 200,
        "block_size": BLOCK,
        "max_concurrent": 8,
        "max_batch_tokens": 128,
    } | settings
    return ModelRunner(LoadedForTest(**loaded), **settings)


def make_prompt(length: int, number: int = 0) -> list[int]:
    """A prompt of ordinary ids that depends on its number."""
    span = tiny_models.VOCABULARY - tiny_models.SPECIAL
    return [tiny_models.SPECIAL + (number * 7919 + i * i * 31 + i) % span for i in range(length)]


class Driver:
    """Sequences over their own blocks; every running one is in each step."""

    def __init__(self, runner: ModelRunner, *, depth: int = 0, chunk: int = 1000) -> None:
        self.runner = runner
        self.depth = depth
        self.chunk = chunk
        self.running: list[Sequence] = []
        self.results: list[tuple[StepBatch, StepResult]] = []
        self._next_block = 1
        self._next_slot = 0
        self._launched: deque[tuple[StepBatch, Any]] = deque()

    def add(self, prompt: list[int], max_tokens: int = 8, **params: Any) -> Sequence:
        """A new sequence with blocks for all it can become."""
        request = Request(
            key=self._next_slot,
            client="test",
            prompt=tuple(prompt),
            params=SamplingParams.build(**{"temperature": 0.0, **params}),
            max_tokens=max_tokens,
        )
        sequence = Sequence(request, 0, list(prompt), output_start=len(prompt))
        count = -(-(len(prompt) + max_tokens + 1) // BLOCK)
        sequence.blocks = list(range(self._next_block, self._next_block + count))
        sequence.slot = self._next_slot
        self._next_block += count
        self._next_slot += 1
        self.running.append(sequence)
        return sequence

    def run(self) -> None:
        """Step until every sequence has its tokens."""
        while self.running or self._launched:
            self.step()

    def step(self) -> None:
        """Launch one step of all that can run; collect one where `depth` more are on their way."""
        rows = [row for row in map(self._row, self.running) if row]
        rows.sort(key=lambda row: row.count > 1)
        if rows:
            batch = StepBatch(rows)
            self._launched.append((batch, self.runner.launch(batch)))
            for row in rows:
                row.sequence.computed += row.count
                row.sequence.in_flight += row.samples
        if len(self._launched) > (self.depth if rows else 0):
            self._collect()

    def _row(self, sequence: Sequence) -> Row | None:
        count = min(self.chunk, sequence.remaining)
        if not count or sequence.generated >= sequence.request.max_tokens:
            return None
        return Row(sequence, sequence.computed, count, samples=count == sequence.remaining)

    def _collect(self) -> None:
        batch, handle = self._launched.popleft()
        result = self.runner.collect(handle)
        self.results.append((batch, result))
        for row, sampled in zip(batch.rows, result.sampled, strict=True):
            if sampled is None:
                continue
            row.sequence.in_flight -= 1
            row.sequence.token_ids.append(sampled.token_id)
            if len(row.sequence.output_ids) == row.sequence.request.max_tokens:
                self.running.remove(row.sequence)
                self.runner.release(row.sequence.slot)
