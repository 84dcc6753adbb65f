"""The weights of a checkpoint, read onto the device, quantised on the way, and all there."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import nn

from llmkernel.errors import BrokenCheckpoint, NotEnoughMemory
from llmkernel.protocol import Progress
from llmkernel.units import count
from llmkernel.worker import formats, memory, models, quantization
from llmkernel.worker.checkpoint import Tensor
from llmkernel.worker.formats import StoredLayers
from llmkernel.worker.quantization import Quantized

Report = Callable[[Progress], None]

_log = logging.getLogger(__name__)

_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
"""How every supported family numbers its layers in the names of their tensors."""
_OWN_LAYER = re.compile(r"(?:\w+\.)?(?:layers|h)\.(\d+)\.")
"""The same for the decoder itself, and not for what a checkpoint of several models holds beside it."""
_TABLES = {
    "embed_tokens": "vocab_size",
    "embed_in": "vocab_size",
    "word_embeddings": "vocab_size",
    "wte": "vocab_size",
    "wpe": "max_position_embeddings",
}
"""Embedding by its name in any family → what it has a row for; a row has hidden_size numbers."""


class Plan(NamedTuple):
    """What becomes of the weights; `needed` are the bytes they take at most while loading.

    `layers` are those of a format that this project reads itself.
    """

    quantized: Quantized
    dtype: torch.dtype
    device: torch.device
    needed: int
    layers: StoredLayers | None = None

    def check_room(self) -> None:
        """Raise NotEnoughMemory where the device has fewer bytes free."""
        if self.needed > memory.free_bytes(self.device):
            raise self.not_enough()

    def not_enough(self) -> NotEnoughMemory:
        """The refusal, with both numbers."""
        free = memory.free_bytes(self.device)
        plain = self.quantized.name == "none"
        cure = " quantization='nf4' takes about a quarter of it." if plain else ""
        return NotEnoughMemory(
            f"The weights take {self.needed / 2**30:.2f} GiB on {self.device}, and "
            f"{free / 2**30:.2f} GiB are free.{cure}",
            needed=self.needed,
            free=free,
        )


def check_sizes(tensors: Mapping[str, Tensor], settings: Any) -> None:
    """Compare layers and embeddings in the files with transformers' configuration.

    Raises BrokenCheckpoint with both numbers. `read` compares every tensor, but only
    after a model of the configured size was built, which takes minutes and gigabytes
    where that size is nonsense.
    """
    layers = {found[1] for found in map(_LAYER.search, tensors) if found}
    if len(layers) < settings.num_hidden_layers:
        raise BrokenCheckpoint(
            f"config.json has {settings.num_hidden_layers} layers, and the files hold "
            f"{len(layers)}. Download the model again."
        )
    last = max((int(found[1]) for found in map(_OWN_LAYER.match, tensors) if found), default=0)
    if last >= settings.num_hidden_layers:
        raise BrokenCheckpoint(
            f"config.json has {settings.num_hidden_layers} layers, and the files hold layer "
            f"{last + 1}: it belongs to another model. Download the model again."
        )
    for name, tensor in tensors.items():
        rows = _TABLES.get(name.removesuffix(".weight").rpartition(".")[2])
        if rows is None or not name.endswith(".weight"):
            continue
        wanted = (getattr(settings, rows), settings.hidden_size)
        if tensor.shape != wanted:
            raise _other_shape(1, name, tensor.shape, wanted)


def read(folder: Path, settings: Any, plan: Plan, report: Report) -> nn.Module:
    """The model in evaluation mode, with every weight from the files in `folder`.

    `settings` is transformers' configuration. Reports the stages read and quantise.
    Raises NotEnoughMemory, and BrokenCheckpoint where the files and the configuration
    do not agree on every tensor.
    """
    from safetensors import SafetensorError

    try:
        with _surroundings(settings, plan, report):
            model, outcome = _from_files(folder, settings, plan)
        _check_complete(outcome)
        if plan.quantized.bits is not None and plan.quantized.stored:
            quantization.hold_in(model, plan.dtype)
        if plan.layers is not None:
            plan.layers.read_into(model, plan.device, plan.dtype, report)
    except (torch.OutOfMemoryError, MemoryError):
        gc.collect()  # what was read so far hangs in the traceback's cycle
        raise plan.not_enough() from None
    except SafetensorError as error:
        raise BrokenCheckpoint(f"The weights cannot be read: {error}") from None
    return model.eval()


def _from_files(folder: Path, settings: Any, plan: Plan) -> tuple[nn.Module, dict[str, Any]]:
    """The model and what transformers says of its loading; without the layers of `plan.layers`."""
    return _model_class(settings, plan).from_pretrained(  # type: ignore[no-any-return]
        folder,
        config=settings,
        dtype=plan.dtype,
        device_map={"": plan.device},
        quantization_config=quantization.settings(plan.quantized, plan.dtype),
        attn_implementation=models.ATTENTION,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # then they are listed, and refused
    )


def _model_class(settings: Any, plan: Plan) -> Any:
    import transformers

    if plan.layers is None:
        return transformers.AutoModelForCausalLM
    kind = getattr(transformers, models.check_supported(settings).architecture)
    return formats.with_holes(kind, plan.layers)


@contextlib.contextmanager
def _surroundings(settings: Any, plan: Plan, report: Report) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if plan.quantized.bits is not None:
            quantization.quiet()
            stack.enter_context(quantization.convertible(settings))
        if plan.device.type == "cuda":
            # bitsandbytes quantises on the current device, whatever the tensor's is
            stack.enter_context(torch.cuda.device(plan.device))
        if plan.layers is not None:
            report = plan.layers.before(report)
        stack.enter_context(_progress("quantise" if plan.quantized.on_the_fly else "read", report))
        yield


def _check_complete(outcome: dict[str, Any]) -> None:
    """transformers fills what is missing with random numbers and warns; here it is an error."""
    if missing := sorted(outcome["missing_keys"]):
        raise BrokenCheckpoint(
            f"The files lack {count(len(missing), 'tensor')} of the model, {missing[0]} first."
        )
    if wrong := sorted(outcome["mismatched_keys"]):
        raise _other_shape(len(wrong), *wrong[0])
    if unused := sorted(outcome["unexpected_keys"]):
        _log.warning("%d tensors in the files are not used, %s first", len(unused), unused[0])


def _other_shape(
    number: int, name: str, stored: Sequence[int], wanted: Sequence[int]
) -> BrokenCheckpoint:
    return BrokenCheckpoint(
        f"The shape of {count(number, 'tensor')} is not that of config.json: {name} is "
        f"{list(stored)} in the files, and {list(wanted)} by config.json."
    )


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
