"""From settings to the parts of an engine: which model, on which runner, with how many blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from llmkernel import collector
from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest, NotEnoughMemory, missing
from llmkernel.protocol import ModelInfo, Progress
from llmkernel.worker import driver, hub
from llmkernel.worker.engine import Engine
from llmkernel.worker.scripted import load_scripted
from llmkernel.worker.sequence import EngineEvent
from llmkernel.worker.step import GraphRoom, Runner
from llmkernel.worker.text import Tokenizer

BLOCK_SIZE = 16
"""Tokens whose keys and values share a block."""
MODEST_SHARE = 0.2
"""Part of the free memory that the cache takes where no size is asked for."""
GPU_PREFILL = 2048
"""Tokens of prompts in a step of a GPU while nothing decodes: expanding 4-bit weights, which each
step does, is little beside multiplying them then."""
MODEST_TOKENS = 2048
"""Tokens for each sequence that decodes at once; more is not taken unasked."""

_ASIDE = 2
"""Blocks of the pools that hold no sequence's tokens."""
LEAST_BLOCKS = _ASIDE + 1
"""Blocks without which nothing can be computed."""

Report = Callable[[Progress], None]


class Parts(NamedTuple):
    """Everything that an engine and its front need."""

    runner: Runner
    tokenizer: Tokenizer
    info: ModelInfo
    config: WorkerConfig
    depth: int
    prefill_tokens: int
    """Tokens of prompts that fit into a step in which nothing decodes."""
    device_bytes: Callable[[], int]
    graph_room: GraphRoom | None = None
    """Which steps with prompts are launched at once."""

    def engine(
        self,
        on_events: Callable[[list[EngineEvent]], None],
        on_death: Callable[[BaseException], None],
    ) -> Engine:
        """An engine of these parts, not started yet."""
        return Engine(
            self.runner,
            num_blocks=self.info.kv_blocks,
            block_size=self.info.block_size,
            max_concurrent=self.config.max_concurrent,
            max_batch_tokens=self.config.max_batch_tokens,
            max_prefill_tokens=self.prefill_tokens,
            context_length=self.info.context_length,
            prefix_cache=self.config.prefix_cache,
            graph_room=self.graph_room,
            depth=self.depth,
            on_events=on_events,
            on_death=on_death,
        )


def assemble(config: WorkerConfig, report: Report) -> Parts:
    """Load what `config` asks for. Takes as long as it takes; call it in a thread.

    Raises StartFailed and what is below it. The scripted model needs no torch.
    """
    if config.model.partition(":")[0] == "scripted":
        return _scripted(config, report)
    hub.local_folder(config.model, config.revision)  # a wrong name need not wait for torch
    try:
        return _loaded(config, report)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("llmkernel"):
            raise
        raise missing(error.name, "worker") from error


def blocks_for(config: WorkerConfig, context_length: int, block_bytes: int, free: int) -> int:
    """Blocks of the cache, by what was asked for or else a modest share of `free` bytes.

    The modest share is 20 % of what is free, but not more than 2048 tokens for each
    sequence that may decode at once, and not less than one whole context where half
    of what is free is enough for it. With a bound on all that is taken (gpu_memory) `free` is
    what is left of it, and given: all of it may be taken as far as there is use for it, and
    kv_cache is a bound as well. What is taken holds two blocks that are never given
    out: block 0, which is counted in the result, and the one that stays zero, which is not.

    Raises NotEnoughMemory if the blocks do not fit, or if what was asked for is too
    small for anything.
    """
    bounded = config.gpu_memory is not None
    if config.kv_cache is not None:
        needed = min(config.kv_cache, free) if bounded else config.kv_cache
        count = needed // block_bytes
    else:
        whole = -(-context_length // BLOCK_SIZE) + _ASIDE
        most = config.max_concurrent * min(context_length, MODEST_TOKENS) // BLOCK_SIZE + _ASIDE
        share, half = (1, 1) if bounded else (MODEST_SHARE, 2)
        count = min(int(free * share) // block_bytes, most)
        if whole * block_bytes <= free // half:
            count = max(count, whole)
        count = max(count, LEAST_BLOCKS)
        needed = count * block_bytes
    if needed > free or (bounded and free < LEAST_BLOCKS * block_bytes):
        raise _no_room(max(needed, LEAST_BLOCKS * block_bytes), max(free, 0), bounded)
    if count <= _ASIDE:
        raise InvalidRequest(
            f"kv_cache={config.kv_cache} (bytes) holds nothing: {BLOCK_SIZE} tokens of this "
            f"model take {block_bytes}, and {_ASIDE} such blocks are kept aside. "
            f"Give {LEAST_BLOCKS * block_bytes} or more, or leave it out.",
            field="kv_cache",
        )
    return count - 1


def largest_step(config: WorkerConfig, on_gpu: bool) -> int:
    """Tokens of prompts that a step may have at most, as far as memory allows."""
    if config.max_prefill_tokens is not None:
        return config.max_prefill_tokens
    return max(config.max_batch_tokens, GPU_PREFILL if on_gpu else 0)


def _no_room(needed: int, free: int, bounded: bool) -> NotEnoughMemory:
    cure = "Allow more with gpu_memory." if bounded else "Ask for a smaller one with kv_cache."
    return NotEnoughMemory(
        f"The cache for keys and values needs {_gib(needed)}, and {_gib(free)} are free. {cure}",
        needed=needed,
        free=free,
    )


def _loaded(config: WorkerConfig, report: Report) -> Parts:
    driver.begin(config.device)
    with collector.importing():
        import torch

        from llmkernel.worker import loader, memory

    loaded = loader.load(config, report)
    from llmkernel.worker.runner import ModelRunner, kv_bytes_per_block

    on_gpu = loaded.device.type == "cuda"
    block_bytes = kv_bytes_per_block(loaded, BLOCK_SIZE)
    free = memory.free_bytes(loaded.device) - loaded.workspace
    blocks = blocks_for(config, loaded.context_length, block_bytes, free)
    depth = int(on_gpu)
    runner = ModelRunner(
        loaded,
        num_blocks=blocks,
        block_size=BLOCK_SIZE,
        max_concurrent=config.max_concurrent,
        max_batch_tokens=largest_step(config, on_gpu),
        copies=depth + 1,
    )
    report(Progress(stage="warm_up", done=0, total=1, unit="steps"))
    # what was asked for has to fit; what was not is taken where it does
    tokens = runner.warm_up(config.max_prefill_tokens or config.max_batch_tokens)
    report(Progress(stage="warm_up", done=1, total=1, unit="steps"))
    if on_gpu:
        from llmkernel.worker.models import compiling

        compiling.begin(loaded.model, loaded.dtype, loaded.device)
    info = msgspec.structs.replace(loaded.info, kernels=runner.kernels)
    info = _with_cache(info, config, blocks, (blocks + 1) * block_bytes)
    return Parts(
        runner,
        loaded.tokenizer,
        info,
        config,
        depth=depth,
        prefill_tokens=tokens,
        device_bytes=lambda: torch.cuda.memory_reserved(loaded.device) if on_gpu else 0,
        graph_room=runner.graph_room,
    )


def _scripted(config: WorkerConfig, report: Report) -> Parts:
    loaded = load_scripted(config, report)
    blocks = config.kv_cache // BLOCK_SIZE if config.kv_cache else loaded.script.blocks
    return Parts(
        runner=loaded.runner(BLOCK_SIZE, config.max_concurrent),
        tokenizer=loaded.tokenizer,
        info=_with_cache(loaded.info, config, blocks, size=blocks * BLOCK_SIZE),
        config=config,
        depth=loaded.script.depth,
        prefill_tokens=largest_step(config, on_gpu=False),
        device_bytes=lambda: 0,
    )


def _with_cache(info: ModelInfo, config: WorkerConfig, blocks: int, size: int) -> ModelInfo:
    """`info` with what the engine adds to what the loader knew; the cache takes `size` bytes."""
    tokens = min(info.context_length, (blocks - 1) * BLOCK_SIZE)
    return msgspec.structs.replace(
        info,
        max_prompt_tokens=tokens - 1,
        kv_cache_bytes=size,
        kv_blocks=blocks,
        block_size=BLOCK_SIZE,
        max_concurrent=config.max_concurrent,
        queue=config.queue,
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
