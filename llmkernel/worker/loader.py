"""From settings to a model on its device, with its tokenizer.

    resolve → download → look at the files → decide → read (and quantise) → check

Everything that can be known before the weights are read is decided before: what
the files are, whether the family is supported, what the weights become and whether
they fit. Nothing is executed that came with a model but its chat template, which
has a process of its own.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.errors import (
    BrokenCheckpoint,
    NotEnoughMemory,
    StartFailed,
    UnsafeCheckpoint,
    UnsupportedModel,
)
from llmkernel.protocol import ModelInfo, Progress
from llmkernel.worker import checkpoint, hub, memory, models, quantization
from llmkernel.worker.checkpoint import Checkpoint
from llmkernel.worker.quantization import Quantized
from llmkernel.worker.tokenizer import HubTokenizer

Report = Callable[[Progress], None]

_log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


def load(config: WorkerConfig, report: Report) -> LoadedModel:
    """Load what `config` names; `report` is called from this thread and a helper's.

    Takes as long as it takes. Raises the classes below StartFailed.
    """
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    source = hub.resolve(config.model, config.revision, report, code=config.trust_remote_code)
    found = checkpoint.inspect(source.folder, config.model)
    settings = _settings(found, config)
    family = models.check_supported(settings)
    context = choose_context(config.context_length, settings)
    asked = config.quantization
    if asked == "auto" and config.model == DEMO_MODEL:
        asked = "none"  # 4 bits of so few weights lose answers and save nothing
    quantized = quantization.decide(asked, found, device)
    quantization.compute_in(settings, dtype)
    empty = _empty_model(settings)
    needed = memory.peak_bytes(empty, quantized, dtype)
    if quantized.stored:
        needed = found.stored_bytes
    if needed > memory.free_bytes(device):
        raise _not_enough(needed, device, quantized)
    tokenizer = _tokenizer(found, config, settings)
    try:
        model = _read(found, settings, quantized, dtype, device, needed, report)
    except BaseException:
        tokenizer.close()
        raise
    info = ModelInfo(
        model=config.model,
        revision=source.revision,
        architecture=family.architecture,
        quantization=quantized.name,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        context_length=context,
        max_prompt_tokens=context - 1,
        vocab_size=settings.vocab_size,
        parameters=sum(parameter.numel() for parameter in empty.parameters()),
        weights_bytes=memory.taken_bytes(model),
        has_chat_template=tokenizer.has_chat_template,
    )
    return LoadedModel(model, tokenizer, device, dtype, context, info)


def choose_device(setting: str) -> torch.device:
    """The device of a setting. "auto" and "cuda" take the GPU with most free memory.

    Raises StartFailed where there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "cpu" or (setting == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise StartFailed(
            f"device={setting} was asked for, and torch finds no CUDA device. "
            "`llmkernel doctor` says what it sees."
        )
    if setting in ("auto", "cuda"):
        best = max(range(count), key=lambda index: torch.cuda.mem_get_info(index)[0])
        return torch.device("cuda", best)
    device = torch.device(setting)
    if device.index >= count:
        raise StartFailed(f"There is no {setting}: the devices are cuda:0 to cuda:{count - 1}.")
    return device


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """The dtype of a setting: "auto" is bfloat16 on a GPU that has it, else float16; float32 on the CPU."""
    if setting != "auto":
        return _DTYPES[setting]
    if device.type == "cpu":
        return torch.float32
    # from compute capability 8.0 on; below it, torch emulates
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def choose_context(asked: int | None, settings: Any) -> int:
    """Tokens of prompt and answer: what was asked for, or what the model was made for.

    Raises UnsupportedModel above the positions that the model, with its rope scaling, has.
    """
    if asked is None:
        return models.natural_context(settings)
    most = longest_context(settings)
    if asked > most:
        raise UnsupportedModel(
            f"context_length={asked} is more than this model's {most} positions.",
            needed=asked,
            limit=most,
        )
    return asked


def longest_context(settings: Any) -> int:
    """Positions of a configuration; a rope scaling may give more than max_position_embeddings."""
    most = int(settings.max_position_embeddings)
    parameters = getattr(settings, "rope_parameters", None) or {}
    nested = [part for part in parameters.values() if isinstance(part, dict)]
    for part in nested or [parameters]:
        factor, original = part.get("factor"), part.get("original_max_position_embeddings")
        if factor and original:
            most = max(most, int(factor * original))
    return most


def _settings(found: Checkpoint, config: WorkerConfig) -> Any:
    """transformers' configuration of a checkpoint."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = str(found.config.get("model_type"))
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
    return str(found.config.get("model_type", "without a model_type"))


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


def _not_enough(needed: int, device: torch.device, quantized: Quantized) -> NotEnoughMemory:
    free = memory.free_bytes(device)
    cure = " quantization='nf4' takes about a quarter of it." if quantized.name == "none" else ""
    return NotEnoughMemory(
        f"The weights take {needed / 2**30:.2f} GiB on {device}, and {free / 2**30:.2f} GiB are "
        f"free.{cure}",
        needed=needed,
        free=free,
    )


def _read(
    found: Checkpoint,
    settings: Any,
    quantized: Quantized,
    dtype: torch.dtype,
    device: torch.device,
    needed: int,
    report: Report,
) -> nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    stage = "quantise" if quantized.on_the_fly else "read"
    surroundings = contextlib.ExitStack()
    if quantized.bits is not None:
        quantization.quiet()
        surroundings.enter_context(quantization.convertible(settings))
    try:
        with surroundings, _on(device), _progress(stage, report):
            model, outcome = auto.from_pretrained(
                found.folder,
                config=settings,
                dtype=dtype,
                device_map={"": device},
                quantization_config=quantization.settings(quantized, dtype),
                attn_implementation=models.ATTENTION,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # then they are listed, and refused below
            )
    except (torch.OutOfMemoryError, MemoryError):
        gc.collect()  # what was read so far hangs in the traceback's cycle
        raise _not_enough(needed, device, quantized) from None
    except SafetensorError as error:
        raise BrokenCheckpoint(f"The weights cannot be read: {error}") from None
    _check_complete(outcome)
    return model.eval()  # type: ignore[no-any-return]


def _check_complete(outcome: dict[str, Any]) -> None:
    """transformers fills what is missing with random numbers and warns; here it is an error."""
    if missing := sorted(outcome["missing_keys"]):
        raise BrokenCheckpoint(
            f"{len(missing)} tensors of the model are not in its files, {missing[0]} first."
        )
    if wrong := sorted(outcome["mismatched_keys"]):
        name, stored, wanted = wrong[0]
        raise BrokenCheckpoint(
            f"{len(wrong)} tensors do not fit the configuration: {name} is {list(stored)} in the "
            f"files, and {list(wanted)} by config.json."
        )
    if unused := sorted(outcome["unexpected_keys"]):
        _log.warning("%d tensors in the files are not used, %s first", len(unused), unused[0])


@contextlib.contextmanager
def _on(device: torch.device) -> Iterator[None]:
    # bitsandbytes quantises on the current device, whatever the tensor's is
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _progress(stage: Any, report: Report) -> Iterator[None]:
    """Relay transformers' progress bar over the tensors as Progress."""
    from transformers.utils import logging as bars

    def bar(factory: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if positional:
            return _Counted(list(positional[0]), stage, report)
        return factory(*positional, **named)

    hooks: Any = bars
    report(Progress(stage="read", unit="tensors"))
    before = hooks.set_tqdm_hook(bar)
    try:
        yield
    finally:
        hooks.set_tqdm_hook(before)


class _Counted:
    """What transformers iterates over, with a report for each."""

    def __init__(self, items: Sequence[Any], stage: Any, report: Report) -> None:
        self._items, self._stage, self._report = items, stage, report

    def __iter__(self) -> Iterator[Any]:
        total = len(self._items)
        for done, item in enumerate(self._items, 1):
            yield item
            self._report(Progress(stage=self._stage, done=done, total=total, unit="tensors"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        # update, set_description, close: there is nothing to draw
        return lambda *_, **__: None
