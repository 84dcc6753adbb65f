"""From settings to a model on its device, with its tokenizer.

    resolve → download → look at the files → kept weights? → decide → read (and quantise) → check

Everything that can be known before the weights are read is decided before: what
the files are, whether the family is supported, what the weights become and whether
they fit. Nothing is executed that came with a model but its chat template, which
has a process of its own.

Importing transformers takes seconds. So what is here does without: the kept weights of an
earlier start are on their way to the device while `construction` is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llmkernel import environment
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.protocol import ModelInfo, Progress
from llmkernel.worker import budget, checkpoint, hub, imports, placement
from llmkernel.worker.cache.keeper import Keeper, keeper_of
from llmkernel.worker.checkpoint import Checkpoint
from llmkernel.worker.hub import Source

if TYPE_CHECKING:
    from llmkernel.worker.tokenizer import HubTokenizer

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to be run: in evaluation mode, on `device`, attention not yet bound to blocks.

    `info` has everything but what the KV cache takes.
    """

    model: Any
    tokenizer: HubTokenizer
    device: torch.device
    dtype: torch.dtype
    context_length: int
    info: ModelInfo
    workspace: int = 0
    """Bytes of the device that keys and values leave to the steps, where there is a bound."""


class Opened(NamedTuple):
    """A model that was found, and where it goes; `keeper` has its packed weights, where any are."""

    source: Source
    found: Checkpoint
    device: torch.device
    dtype: torch.dtype
    keeper: Keeper | None
    allowed: int
    """Bytes of the GPU that all of it may take; 0 for no bound."""


def load(config: WorkerConfig, report: Report) -> LoadedModel:
    """Load what `config` names; `report` is called from this thread and helpers'.

    Takes as long as it takes. Raises the classes below StartFailed.
    """
    opened = _open(config, report)
    if opened.device.type == "cuda" and environment.own_kernels():
        imports.know_triton()
    with imports.lean(() if config.trust_remote_code else imports.UNUSED):
        from llmkernel.worker import construction

    return construction.build(config, opened, report)


def quantization_of(config: WorkerConfig) -> str:
    """The setting, as it is meant for the model."""
    if config.quantization == "auto" and config.model == DEMO_MODEL:
        return "none"  # 4 bits of so few weights lose answers and save nothing
    return config.quantization


def _open(config: WorkerConfig, report: Report) -> Opened:
    device = placement.choose_device(config.device)
    dtype = placement.choose_dtype(config.dtype, device)
    allowed = budget.impose(config.gpu_memory, device)
    source = hub.resolve(config.model, config.revision, report, code=config.trust_remote_code)
    found = checkpoint.inspect(source.folder, config.model)
    keeper = None
    if config.weight_cache:
        keeper = keeper_of(
            found,
            source.revision,
            quantization=quantization_of(config),
            device=device,
            dtype=dtype,
            report=report,
        )
    return Opened(source, found, device, dtype, keeper, allowed)
