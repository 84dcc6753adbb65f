"""Steps of few tokens as CUDA graphs: one for each bucket, captured when it is first needed.

A step of a small model on a fast GPU is hundreds of launches of a few microseconds; a
replay is one. What a graph reads lies in the static buffers of `inputs`, so a replay
needs nothing but the step's numbers in them. A token of a prompt is a row like that of a
decoding sequence, with the tokens before it as its context: one graph serves both.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmkernel import collector
from llmkernel.worker.inputs import StepTensors
from llmkernel.worker.step import GraphRoom, StepBatch

_SMALL = (1, 2, 4, 8, 12, 16, 24, 32)
_STEP = 16
"""Buckets above the small ones are this far apart."""
PROMPT_BUCKETS = (8, 16, 32, 64)
"""Of steps with prompts: few, since all are captured before anybody waits for them. The small ones are for
prompts that are known but for the rest of a block, which is up to 16 tokens."""
ROOM = GraphRoom(tokens=PROMPT_BUCKETS[-1], read=2**18)
"""Of steps with prompts. More tokens would read the weights twice, or have them expanded; and
launching a step by hand, 25 ms for 32 layers, is quicker than reading more (131 KB for each of 8B at 4 TB/s)."""
_log = logging.getLogger(__name__)


class Bucket(NamedTuple):
    """Steps that share a graph: of `rows` at most.

    In some no row is of a sequence that another is of, so that none sees what another one writes:
    they stand `apart`, and a kernel may read keys before all are written.
    """

    rows: int
    apart: bool


class Decoded(NamedTuple):
    """What a step computes in which each token is a row: `hidden` [rows, hidden_size], `logits`
    [rows, vocab_size] and their `greedy_tokens` [rows]."""

    hidden: Tensor
    logits: Tensor
    greedy: Tensor


class StepGraphs:
    """The graphs of one runner.

    `compute` runs a step on the device whose tokens are rows, and waits for nothing; `padded`
    gives the static tensors of a number of rows. `max_rows` sequences decode. Where rows that stand
    apart are computed in another way, `tells_apart` says so. The graphs share one pool of memory,
    since they never run at the same time.
    """

    def __init__(
        self,
        compute: Callable[[StepTensors], Decoded],
        padded: Callable[[int], StepTensors],
        max_rows: int,
        *,
        tells_apart: bool = False,
    ) -> None:
        self._compute = compute
        self._padded = padded
        self._tells_apart = tells_apart
        self._buckets = buckets(max_rows)
        self._prompt_buckets = list(PROMPT_BUCKETS)
        self._memory: Any = None
        """The pool, from the first capture on."""
        self._captured: dict[Bucket, tuple[torch.cuda.CUDAGraph, Decoded]] = {}

    @property
    def room(self) -> GraphRoom | None:
        """Which steps with prompts have one; None where there was no memory for any."""
        return ROOM._replace(tokens=self._prompt_buckets[-1]) if self._prompt_buckets else None

    def bucket(self, batch: StepBatch) -> Bucket | None:
        """The graph that serves the batch; None where none does."""
        tokens, apart = batch.tokens, batch.tokens == len(batch.rows)
        sizes = self._buckets
        if not apart:
            sizes = self._prompt_buckets if batch.read <= ROOM.read else []
        at = bisect.bisect_left(sizes, tokens)
        return Bucket(sizes[at], apart and self._tells_apart) if at < len(sizes) else None

    def run(self, bucket: Bucket) -> Decoded | None:
        """Replay the step that lies in the buffers, which `bucket` gave the size of.

        What comes back is overwritten by the next replay of the bucket. None where there is
        no memory to compute it. Where there is none to capture it either, this bucket and
        larger ones are not tried again.
        """
        if bucket not in self._captured:
            return self._first(bucket)
        graph, decoded = self._captured[bucket]
        graph.replay()
        return decoded

    def _first(self, bucket: Bucket) -> Decoded | None:
        """Launch the step, which compiles kernels and sets libraries up, then capture it.

        It is not replayed: a step writes what it begins from, the newest tokens.
        """
        tensors, decoded = self._padded(bucket.rows), None
        assert tensors.paged.decode is not None, "each token is a row"
        tensors.paged.decode.apart = bucket.apart
        try:
            decoded = self._compute(tensors)
            self._captured[bucket] = self._capture(tensors)
        except torch.OutOfMemoryError:
            self._buckets = [size for size in self._buckets if size < bucket.rows]
            self._prompt_buckets = [size for size in self._prompt_buckets if size < bucket.rows]
            _log.warning("no memory for the graph of %d rows; such steps are launched", bucket.rows)
        return decoded

    def _capture(self, tensors: StepTensors) -> tuple[torch.cuda.CUDAGraph, Decoded]:
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with (
            collector.paused(),  # a graph that it frees would end the capture of this one
            torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"),
        ):
            decoded = self._compute(tensors)
        return graph, decoded


def buckets(max_rows: int) -> list[int]:
    """Sizes of steps up to `max_rows`: close together where rows are few."""
    sizes = [size for size in _SMALL if size < max_rows]
    sizes += range(_SMALL[-1] + _STEP, max_rows, _STEP)
    return [*sizes, max_rows]
