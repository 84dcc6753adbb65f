"""A step on the device: inputs, the forward pass, the draw, and what comes back.

`launch` enqueues and returns; `collect` waits. On the CPU the work is done when
`launch` returns. Everything between the inputs and the logits is tensors of the
static buffers, so that the decode step can be captured and replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from llmkernel import environment
from llmkernel.errors import DeviceOutOfMemory, EngineDied, NotEnoughMemory
from llmkernel.params import SamplingParams
from llmkernel.worker.graphs import PROMPT_BUCKETS, ROOM, Decoded, StepGraphs
from llmkernel.worker.inputs import StepInputs, StepTensors
from llmkernel.worker.kernels.paged_attention import decode_attention
from llmkernel.worker.models import (
    PagedState,
    check_supported,
    compiling,
    fused,
    make_paged,
    split_model,
)
from llmkernel.worker.models.families import block_bytes
from llmkernel.worker.models.serving import describe
from llmkernel.worker.newest import NewestTokens
from llmkernel.worker.prompt_scores import PromptScores, prompt_logprobs, score_prompts
from llmkernel.worker.sampler import Sampler, SamplerOutput, to_sampled
from llmkernel.worker.sequence import Request, Sampled, Sequence
from llmkernel.worker.step import GraphRoom, Row, StepBatch, StepResult

_CPU_MEMORY = "can't allocate memory"
"""How torch says that the machine, which has no error class of its own, is out of memory."""


_FEW_AFTER_MANY = (128, 1024)
"""Tokens of a chunk, and before it: its attention is by kernels that larger chunks do not have."""


class Loaded(Protocol):
    """What the runner needs of a loaded model."""

    @property
    def model(self) -> Any:
        """A transformers model of a supported family, in evaluation mode."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and keeps keys and values in."""

    @property
    def context_length(self) -> int:
        """Tokens of a prompt and its answer at most."""


@dataclass(slots=True, eq=False)
class Launched:
    """A step on its way: host copies that are valid once `done` has happened."""

    batch: StepBatch
    output: SamplerOutput | None
    scores: PromptScores | None
    done: torch.Event | None


class _Computed(NamedTuple):
    """A step before its draw: hidden states [tokens, hidden], and of its samples the logits
    [samples, vocab] and, out of a graph, which has kept them as newest, the greedy tokens."""

    hidden: Tensor
    logits: Tensor | None
    tensors: StepTensors
    greedy: Tensor | None = None


class ModelRunner:
    """Runs steps of a loaded model over `num_blocks` blocks of `block_size` tokens.

    Slots are 0..`max_concurrent`-1; a step has at most `max_batch_tokens` tokens of
    prompts and one of each running sequence. `copies` is one more than the number of
    steps that may be launched before the first is collected. One thread calls it.
    Raises NotEnoughMemory where the blocks do not fit, and what `make_paged` raises.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        num_blocks: int,
        block_size: int,
        max_concurrent: int,
        max_batch_tokens: int,
        copies: int = 2,
    ) -> None:
        self._loaded = loaded
        self._device = torch.device(loaded.device)
        self._max_batch_tokens = max_batch_tokens
        self._ahead = copies > 1
        """Whether a step may begin from tokens that were not read back."""
        with _start_memory("for keys and values"):
            self._state = PagedState(
                loaded.model.config,
                num_blocks=num_blocks,
                block_size=block_size,
                context_length=loaded.context_length,
                dtype=loaded.dtype,
                device=self._device,
            )
        make_paged(loaded.model, self._state)
        if self._device.type == "cuda":
            counts = {1, max_concurrent, *PROMPT_BUCKETS}
            compiling.ahead(loaded.model, loaded.dtype, self._device, counts)
        fused.fuse_layers(loaded.model, self._state)
        self._backbone, self._head = split_model(loaded.model)
        with _start_memory("for max_concurrent sequences and max_batch_tokens tokens a step"):
            self._inputs = StepInputs(
                max_tokens=max_batch_tokens + max_concurrent,
                max_rows=max_concurrent,
                max_blocks=min(num_blocks, -(-loaded.context_length // block_size) + 1),
                block_size=block_size,
                device=self._device,
                copies=copies,
                graph_rows=ROOM.tokens,
            )
            self._sampler = Sampler(self._head.vocab_size, max_concurrent, self._device)
            self._owners: list[Sequence | None] = [None] * max_concurrent
            self._newest = NewestTokens(max_concurrent, self._device)
        self._graphs = self._make_graphs(max_concurrent)

    @property
    def kernels(self) -> str:
        """Whose code computes the model, in words."""
        return describe(
            self._loaded.model,
            split_attention=self._state.decode is not decode_attention,
            graphs=self._graphs is not None,
        )

    @property
    def graph_room(self) -> GraphRoom | None:
        """Which steps with prompts are launched at once; None where all are by hand."""
        return self._graphs.room if self._graphs else None

    def launch(self, batch: StepBatch) -> Launched:
        """Enqueue a step and return without waiting for the device.

        The blocks of each sequence cover the step. Raises DeviceOutOfMemory or what the
        model raised: the step's sequences are to be released or launched again, others go
        on. Raises EngineDied where the device is lost.
        """
        with _device_errors():
            try:
                return self._launch(batch)
            finally:
                self._state.step = None

    def collect(self, launched: Launched) -> StepResult:
        """Wait for a step and return what it gave, one entry per row. Raises as `launch` does."""
        if launched.done is not None:
            with _device_errors():
                launched.done.synchronize()
        rows = launched.batch.rows
        sampled: list[Sampled | None] = [None] * len(rows)
        if launched.output is not None:
            drawn = iter(to_sampled(launched.output, [row for row in rows if row.samples]))
            sampled = [next(drawn) if row.samples else None for row in rows]
        return StepResult(sampled, prompt_logprobs(rows, launched.scores))

    def release(self, slot: int) -> None:
        """The slot is free; steps in flight that still use it are harmless."""
        self._disown(slot)
        self._sampler.release(slot)

    def warm_up(self, least: int | None = None) -> int:
        """Run the largest steps once, so that the first request does not pay for set-up.

        Shows too whether they fit; how many tokens of prompts do is returned, `least` or more
        (None is all of them). Raises NotEnoughMemory where they do not. On the CPU, where
        nothing is set up and memory is not claimed, the steps are small.
        """
        large, tokens = self._device.type == "cuda", self._max_batch_tokens
        if large:
            tokens = self.largest_prefill(tokens if least is None else least)
        with _start_memory("for the largest step"):
            if not large:
                self._try_out(1, 2)
            self._try_out(len(self._owners) if large else 1, 1)
            for size in PROMPT_BUCKETS if self._graphs else ():
                self._try_out(1, min(size, self._longest - 1, self._max_batch_tokens))
            few, before = _FEW_AFTER_MANY
            if large and few <= self._max_batch_tokens and few + before <= self._longest:
                self._try_out(1, few, before)
        return tokens

    @property
    def _longest(self) -> int:
        """Tokens that a sequence can have, by its length and by the blocks that there are."""
        blocks, size = self._inputs.tables.ids.shape[1], self._state.pools[0].block_size
        return min(blocks * size, self._loaded.context_length)

    def largest_prefill(self, least: int) -> int:
        """Tokens of prompts that fit into a step: all there may be, or half, ..., or `least`.

        Found by running such steps. Raises NotEnoughMemory where `least` do not fit.
        """
        tokens = self._max_batch_tokens
        while True:
            longest = min(tokens, self._longest - 1)
            rows = min(-(-tokens // longest), len(self._owners))
            try:
                with _start_memory("for the largest step"):
                    self._try_out(rows, min(-(-tokens // rows), longest))
            except NotEnoughMemory:
                if tokens <= least:
                    raise
                tokens = max(tokens // 2, least)
            else:
                return tokens

    def _try_out(self, width: int, count: int, start: int = 0) -> None:
        """Run one step of `width` rows with `count` tokens each, in the block of the padding.

        Before them are `start` tokens that were computed.
        """
        params = SamplingParams(temperature=0.0)
        request = Request(key=-1, client="", prompt=(), params=params, max_tokens=1)
        blocks, end = [0] * self._inputs.tables.ids.shape[1], start + count
        sequences = [
            Sequence(request, index, [0] * end, blocks=blocks, slot=index, output_start=end)
            for index in range(width)
        ]
        rows = [Row(sequence, start, count, samples=True) for sequence in sequences]
        self.collect(self.launch(StepBatch(rows)))
        for slot in range(width):
            self.release(slot)

    @torch.inference_mode()
    def _launch(self, batch: StepBatch) -> Launched:
        if self._device.index is not None:
            torch.accelerator.set_device_index(
                self._device.index
            )  # each thread starts with the first
        for row in batch.rows:
            if self._owners[row.sequence.slot] is not row.sequence:
                self._own(row.sequence)
        computed = self._compute(batch)
        output = self._sample(computed, [row for row in batch.rows if row.samples])
        scores = score_prompts(computed.hidden, self._head, batch.rows)
        done = None
        if self._device.type == "cuda":
            output, scores = _sent_to_host(output, scores)
            done = torch.Event(self._device)
            done.record()
        return Launched(batch, output, scores, done)

    def _own(self, sequence: Sequence) -> None:
        self._disown(sequence.slot)
        self._sampler.attach(sequence.slot, sequence)
        self._owners[sequence.slot] = sequence

    def _disown(self, slot: int) -> None:
        self._owners[slot] = None
        self._inputs.tables.forget(slot)

    def _make_graphs(self, max_rows: int) -> StepGraphs | None:
        family = check_supported(self._loaded.model.config)
        fixed = self._state.decode is not decode_attention
        allowed = environment.cuda_graphs()
        if self._device.type != "cuda" or family.waits or not fixed or not allowed:
            return None
        apart = fused.tells_apart(self._loaded.model)
        return StepGraphs(self._step_of_rows, self._inputs.padded, max_rows, tells_apart=apart)

    def _compute(self, batch: StepBatch) -> _Computed:
        bucket = self._graphs.bucket(batch) if self._graphs else None
        tensors = self._inputs.fill(batch, bucket.rows if bucket else 0)
        samples = tensors.sampled.shape[0]
        decoded = self._graphs.run(bucket) if self._graphs and bucket else None
        hidden = decoded.hidden[: batch.tokens] if decoded else self._forward(tensors)
        if not samples:
            return _Computed(hidden, None, tensors)
        # each of them, in order, or some
        chosen = slice(samples) if samples == batch.tokens else tensors.sampled
        if decoded:
            return _Computed(hidden, decoded.logits[chosen], tensors, decoded.greedy[chosen])
        return _Computed(hidden, self._head(hidden[chosen]), tensors)

    def _step_of_rows(self, tensors: StepTensors) -> Decoded:
        """A step in which every token is a row, as if all that are sampled were greedy."""
        hidden = self._forward(tensors)
        logits = self._head(hidden)
        greedy = self._newest.keep_likeliest(logits, tensors.slots)
        return Decoded(hidden, logits, greedy)

    def _forward(self, tensors: StepTensors) -> Tensor:
        """Hidden states [tokens, hidden] after the last layer; keys and values are written."""
        ids = tensors.ids
        if not tensors.known:
            ids = self._newest.fill_in(ids, tensors.sources)
        self._state.step = tensors.paged
        output = self._backbone(
            input_ids=ids[None], position_ids=tensors.positions[None], use_cache=False
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _sample(self, computed: _Computed, rows: list[Row]) -> SamplerOutput | None:
        if computed.logits is None:
            return None
        output = self._sampler.sample(computed.logits, rows, computed.greedy)
        if self._ahead and output.tokens is not computed.greedy:
            # a next step that is launched before these are read back begins from them
            self._newest.keep(computed.tensors.slots, output.tokens)
        return output


def kv_bytes_per_block(loaded: Loaded, block_size: int) -> int:
    """Bytes that one block of `block_size` tokens takes over all layers, keys and values."""
    return block_bytes(loaded.model.config, block_size, loaded.dtype.itemsize)


def _sent_to_host(
    output: SamplerOutput | None, scores: PromptScores | None
) -> tuple[SamplerOutput | None, PromptScores | None]:
    """The same on the host, in pinned memory; the copies are enqueued, not waited for."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", non_blocking=True)

    if output is not None:
        fields = (output.logprob, output.top_ids, output.top_logprobs)
        optional = (None if field is None else copy(field) for field in fields)
        output = SamplerOutput(copy(output.tokens), *optional)
    if scores is not None:
        scores = PromptScores(scores.counts, scores.targets, *map(copy, scores[2:]))
    return output, scores


@contextmanager
def _device_errors() -> Iterator[None]:
    """Say what a device error means: for the step, or for the process."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise EngineDied(
            "The device reported an error that this process cannot recover from."
        ) from error
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and _CPU_MEMORY not in str(error):
            raise
        raise DeviceOutOfMemory(
            "The device had no memory for a step; its requests were dropped, others go on."
        ) from error


@contextmanager
def _start_memory(purpose: str) -> Iterator[None]:
    """Running out of memory while a worker starts is no failed step but a failed start."""
    try:
        with _device_errors():
            yield
    except DeviceOutOfMemory as error:
        raise NotEnoughMemory(
            f"The device has no memory left {purpose}. Start with a smaller kv_cache,"
            " max_concurrent or max_batch_tokens."
        ) from error
