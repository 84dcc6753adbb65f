"""A model that was found becomes one in memory: its weights read, or those kept of an earlier start."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from llmkernel import environment
from llmkernel.config import WorkerConfig
from llmkernel.errors import BrokenCheckpoint, UnsafeCheckpoint, UnsupportedModel
from llmkernel.protocol import ModelInfo, Progress
from llmkernel.worker import (
    budget,
    checkpoint,
    formats,
    memory,
    models,
    placement,
    quantization,
    weights,
)
from llmkernel.worker.assembly import BLOCK_SIZE, LEAST_BLOCKS
from llmkernel.worker.checkpoint import Checkpoint
from llmkernel.worker.formats import StoredLayers
from llmkernel.worker.loader import LoadedModel, Opened, quantization_of
from llmkernel.worker.models import families, packed, rehearsal
from llmkernel.worker.models.families import block_bytes
from llmkernel.worker.quantization import Quantized
from llmkernel.worker.tokenizer import HubTokenizer

_LEAST_CAPABILITY = (8, 0)
"""Of a GPU for the 4-bit kernels: bfloat16 on tensor cores."""
_HALVES = (torch.float16, torch.bfloat16)
"""What the 4-bit kernels compute in."""

Report = Callable[[Progress], None]
_log = logging.getLogger(__name__)


def build(config: WorkerConfig, opened: Opened, report: Report) -> LoadedModel:
    """The model of what was found. Raises the classes below StartFailed."""
    source, found, device, dtype = opened[:4]
    settings = _settings(found, config)
    models.check_supported(settings)
    families.check_values(settings)
    weights.check_sizes(found.tensors, settings)
    context = placement.choose_context(config.context_length, settings)
    quantized = quantization.decide(quantization_of(config), found, device)
    quantization.compute_in(settings, dtype)
    if quantized.format is not None:
        del settings.quantization_config  # transformers would ask for the libraries that wrote it
    empty = _empty_model(settings)
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    quantization.check_shapes(empty, quantized, device)
    layers = formats.find(found, empty, quantized.format) if quantized.format else None
    room = _room(config, opened, settings, empty)
    rehearsed = rehearsal.begin(settings, block_size=BLOCK_SIZE, dtype=dtype, device=device)
    tokenizer = _tokenizer(found, config, settings)
    try:
        model = _kept(opened, settings, quantized, room)
        if model is None:
            model = _read(opened, settings, quantized, empty, layers, room, report)
        rehearsed()
    except BaseException:
        tokenizer.close()
        raise
    info = ModelInfo(
        model=config.model,
        revision=source.revision,
        architecture=type(model).__name__,
        quantization=quantized.name,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        context_length=context,
        max_prompt_tokens=context - 1,
        vocab_size=settings.vocab_size,
        parameters=parameters,
        weights_bytes=memory.taken_bytes(model),
        gpu_memory=opened.allowed,
        has_chat_template=tokenizer.has_chat_template,
    )
    return LoadedModel(model, tokenizer, device, dtype, context, info, room.workspace)


class _Room(NamedTuple):
    """What the weights must leave of the bound on the GPU's memory; zeros where there is none."""

    workspace: int
    cache: int

    def check(self, allowed: int, weights: int) -> None:
        """Raise NotEnoughMemory where they do not leave it."""
        budget.check(allowed, weights, self.workspace + self.cache)


def _room(config: WorkerConfig, opened: Opened, settings: Any, empty: nn.Module) -> _Room:
    if not opened.allowed:
        return _Room(0, 0)
    rows, item = config.max_concurrent, opened.dtype.itemsize
    widths = memory.widths(empty, settings.vocab_size)
    workspace = budget.workspace(
        widths, (config.max_prefill_tokens or config.max_batch_tokens) + rows, rows, item
    )
    return _Room(workspace, LEAST_BLOCKS * block_bytes(settings, BLOCK_SIZE, item))


def _kept(opened: Opened, settings: Any, quantized: Quantized, room: _Room) -> nn.Module | None:
    """The model of an earlier start, where its weights were kept and are whole."""
    if opened.keeper is None:
        return None
    room.check(opened.allowed, opened.keeper.bytes)
    try:
        return opened.keeper.model(_skeleton(settings, opened.dtype), opened.dtype)
    except torch.OutOfMemoryError:
        plan = weights.Plan(quantized, opened.dtype, opened.device, opened.keeper.bytes)
        gc.collect()
        raise plan.not_enough() from None


def _skeleton(settings: Any, dtype: torch.dtype) -> nn.Module:
    """The model without memory, of the modules that it is read into: some families choose by these."""
    return memory.empty_model(settings, attn_implementation=models.ATTENTION, dtype=dtype)


def _read(
    opened: Opened,
    settings: Any,
    quantized: Quantized,
    empty: nn.Module,
    layers: StoredLayers | None,
    room: _Room,
    report: Report,
) -> nn.Module:
    """The model from the files, and kept for the next start where there is something to gain."""
    found, device, dtype = opened.found, opened.device, opened.dtype
    needed = _needed(empty, found, quantized, dtype, layers)
    plan = weights.Plan(quantized, dtype, device, needed, layers)
    # the most that they take while they are read is gone when the workspace is wanted
    room.check(opened.allowed, needed if layers else memory.expected_bytes(empty, quantized, dtype))
    plan.check_room()
    skeleton = _skeleton(settings, dtype)  # before its reader changes the settings
    model = weights.read(opened.source.folder, settings, plan, report)
    _use_own_kernels(model, quantized, device, dtype)
    if opened.keeper is not None:
        opened.keeper.keep(model, skeleton)
    return model


def _use_own_kernels(
    model: nn.Module, quantized: Quantized, device: torch.device, dtype: torch.dtype
) -> None:
    """Put 4-bit layers on this project's kernels, where the GPU has what they need."""
    if device.type != "cuda" or not environment.own_kernels():
        return
    if quantized.format is None and quantized.bits != 4:
        return
    if quantized.format is not None and dtype not in _HALVES:
        return
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        _log.info("the GPU is older than the 4-bit kernels; others serve")
        return
    try:
        with torch.cuda.device(device), torch.inference_mode():
            ours = quantized.format is not None
            count = packed.use_kernels(model, dtype) if ours else packed.pack_layers(model)
    except Exception:  # noqa: BLE001 - of NVRTC or the driver; the layers work as they are
        _log.exception("the 4-bit kernels cannot be used; others serve")
    else:
        _log.info("%d layers on the project's own 4-bit kernels", count)
    torch.cuda.empty_cache()


def _needed(
    empty: nn.Module,
    found: Checkpoint,
    quantized: Quantized,
    dtype: torch.dtype,
    layers: StoredLayers | None,
) -> int:
    if layers is not None:
        return layers.peak_bytes(empty, dtype)
    if quantized.stored:
        return quantization.stored_peak_bytes(found.tensors, dtype)
    return memory.peak_bytes(empty, quantized, dtype)


def _settings(found: Checkpoint, config: WorkerConfig) -> Any:
    """transformers' configuration of a checkpoint."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if found.config.get("model_type") is None:
        raise BrokenCheckpoint(
            "config.json has no model_type, which says what its values mean. Download it again."
        )
    kind = str(found.config["model_type"])
    if kind not in CONFIG_MAPPING and not (found.brings_code and config.trust_remote_code):
        if found.brings_code:
            raise UnsafeCheckpoint(
                f"{config.model} needs code of its own (auto_map in config.json), which is not run. "
                f"Supported are {models.supported_names()}."
            )
        raise UnsupportedModel(
            f"The architecture {_architecture(found)} is not supported. "
            f"Supported are {models.supported_names()}."
        )
    auto: Any = AutoConfig
    try:
        settings = auto.from_pretrained(
            found.folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:  # each family's own checks, each with its own exception
        raise _broken_settings(error) from error
    # it may name other weight files than the ones that were looked at
    settings.transformers_weights = None
    if not found.quantization and hasattr(settings, "quantization_config"):
        del settings.quantization_config  # to transformers an empty one is not none
    return settings


def _empty_model(settings: Any) -> nn.Module:
    try:
        return memory.empty_model(settings)
    except Exception as error:  # whatever a family's code makes of impossible values
        raise _broken_settings(error) from error


def _broken_settings(error: Exception) -> BrokenCheckpoint:
    text = " ".join(str(error).split())
    return BrokenCheckpoint(f"config.json does not hold together: {type(error).__name__}: {text}")


def _architecture(found: Checkpoint) -> str:
    names = found.config.get("architectures")
    if isinstance(names, list) and names:
        return str(names[0])
    return str(found.config["model_type"])


def _tokenizer(found: Checkpoint, config: WorkerConfig, settings: Any) -> HubTokenizer:
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    try:
        fast = auto.from_pretrained(
            found.folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:  # of any tokenizer class and of the tokenizers library
        if "trust_remote_code" in str(error):
            raise UnsafeCheckpoint(
                f"The tokenizer of {config.model} needs code of its own, which is not run."
            ) from None
        if not (found.folder / "tokenizer.json").exists():
            raise UnsupportedModel(
                f"{config.model} has no tokenizer.json, which llmkernel needs."
            ) from error
        raise BrokenCheckpoint(f"The tokenizer cannot be read: {error}") from error
    return HubTokenizer(fast, _end_tokens(found, settings), settings.vocab_size)


def _end_tokens(found: Checkpoint, settings: Any) -> set[int]:
    """Ids that end an answer, by generation_config.json or else config.json."""
    path = found.folder / "generation_config.json"
    generation = checkpoint.read_json(path) if path.exists() else {}
    stored = generation.get("eos_token_id", getattr(settings, "eos_token_id", None))
    ids = stored if isinstance(stored, list) else [stored]
    return {token for token in ids if isinstance(token, int)}
