"""Which form the weights take: as stored, or quantised by bitsandbytes while they are read.

What bitsandbytes has quantised it reads itself; what is in `formats` this project reads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmkernel.errors import BrokenCheckpoint, UnsupportedModel, missing
from llmkernel.worker import formats
from llmkernel.worker.checkpoint import Checkpoint, Tensor
from llmkernel.worker.formats import Format

BLOCK = 64
"""Weights that share a scale in the 4-bit formats."""
_MARKS = {"nf4": ".bitsandbytes__nf4", "fp4": ".bitsandbytes__fp4", "int8": ".SCB"}
"""How the tensors are called that bitsandbytes stores beside a quantised weight."""
_SCALES = ("absmax", "quant_map", ".SCB")
"""How the names of those end that are floating-point numbers."""
_PLAIN = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""What weights that are not quantised are stored in, as safetensors names it."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """The decision. `stored` says that the checkpoint is quantised already.

    `format` is what it is quantised in where that is not bitsandbytes'.
    """

    name: str
    stored: bool = False
    format: Format | None = None

    @property
    def bits(self) -> int | None:
        """Bits of a weight that bitsandbytes holds, None where it holds none."""
        return {"nf4": 4, "fp4": 4, "int8": 8}.get(self.name)

    @property
    def on_the_fly(self) -> bool:
        """Whether loading quantises."""
        return self.bits is not None and not self.stored


def decide(requested: str, found: Checkpoint, device: torch.device) -> Quantized:
    """What becomes of the weights in `found`, by the setting `requested`.

    What a checkpoint is quantised to wins over "auto"; a setting that contradicts it,
    and a method that nobody here reads, raise UnsupportedModel. Raises
    BrokenCheckpoint where the files are not quantised as config.json says, and
    MissingDependency without bitsandbytes where it is needed.
    """
    form = formats.choose(found.quantization or {})
    if form is not None:
        _refuse_other(requested, form.name)
        _check_readable(found)
        return Quantized(formats.label(form), stored=True, format=form)
    have = stored_name(found.quantization) if found.quantization else None
    if have and not any(name.endswith(_MARKS[have]) for name in found.tensors):
        raise BrokenCheckpoint(
            f"config.json says that the weights are quantised to {have}, and the files hold none "
            "that are. Without its quantization_config they load as they are."
        )
    _check_readable(found)
    if have:
        _refuse_other(requested, have)
    name = have or requested
    if name == "auto":
        name = "nf4" if device.type == "cuda" else "none"
    decided = Quantized(name, stored=have is not None)
    if decided.bits is not None:
        for package in ("bitsandbytes", "accelerate"):
            if importlib.util.find_spec(package) is None:
                raise missing(package, "worker")
    return decided


def _refuse_other(requested: str, have: str) -> None:
    if requested not in ("auto", have):
        raise UnsupportedModel(
            f"The checkpoint is quantised to {have} and cannot be loaded as {requested}. "
            "Leave quantization out, or use the unquantised model."
        )


def stored_name(stored: Mapping[str, Any]) -> str:
    """nf4, fp4 or int8 from a checkpoint's quantization_config; else raises UnsupportedModel."""
    method = stored.get("quant_method") or (
        "bitsandbytes" if stored.get("load_in_4bit") or stored.get("load_in_8bit") else "unknown"
    )
    if method != "bitsandbytes":
        raise UnsupportedModel(
            f"The checkpoint is quantised by {method}, which is not supported. Use the unquantised "
            "model, or one quantised by bitsandbytes, GPTQ or AWQ."
        )
    name = "int8" if stored.get("load_in_8bit") else stored.get("bnb_4bit_quant_type", "fp4")
    if name not in _MARKS:
        raise UnsupportedModel(f"The checkpoint is quantised to {name}, which is not supported.")
    return str(name)


def check_shapes(empty: Any, decided: Quantized, device: torch.device) -> None:
    """Raise UnsupportedModel for layers that bitsandbytes cannot hold in 4 bits on the CPU.

    `empty` is the model without memory. There, rows that are no whole number of blocks come
    back wrong without a word (0.50.2: with 32, 96, 160 or 224 inputs, four times the error).
    """
    if decided.bits != 4 or device.type != "cpu":
        return
    head = empty.get_output_embeddings()
    for name, module in empty.named_modules():
        if isinstance(module, nn.Linear) and module is not head and module.in_features % BLOCK:
            raise UnsupportedModel(
                f"{name} has {module.in_features} inputs, and on the CPU 4 bits need a multiple of "
                f"{BLOCK}. Use quantization='int8' or 'none', or a GPU."
            )


def _check_readable(found: Checkpoint) -> None:
    """Raise BrokenCheckpoint for integers that nothing says how to read as weights."""
    for name, tensor in found.tensors.items():
        if name.endswith(".qweight") and not found.quantization:
            raise BrokenCheckpoint(
                f"{name} is quantised, and config.json has no quantization_config that says how. "
                "Add the one of quantize_config.json, or download the model again."
            )
        if not name.endswith(".weight") or tensor.dtype in _PLAIN:
            continue
        beside = (f"{name}.quant_state.bitsandbytes__", f"{name.removesuffix('weight')}SCB")
        if not any(other.startswith(beside) for other in found.tensors):
            raise BrokenCheckpoint(
                f"{name} is stored as {tensor.dtype}, and nothing in the files says what its "
                "numbers stand for. Use the unquantised model, or one quantised by bitsandbytes."
            )


def settings(decided: Quantized, dtype: torch.dtype) -> Any:
    """transformers' BitsAndBytesConfig for weights that loading quantises, else None."""
    if not decided.on_the_fly:
        return None
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    if decided.name == "int8":
        return make(load_in_8bit=True)
    return make(load_in_4bit=True, bnb_4bit_quant_type=decided.name, bnb_4bit_compute_dtype=dtype)


def compute_in(config: Any, dtype: torch.dtype) -> None:
    """Make a stored 4-bit checkpoint compute in the worker's dtype, not the one it was saved with."""
    stored = getattr(config, "quantization_config", None)
    if isinstance(stored, dict) and stored.get("load_in_4bit"):
        stored["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")


def stored_peak_bytes(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> int:
    """Bytes that a checkpoint of bitsandbytes' takes at most until `hold_in` has been through it.

    First all is there as it is stored. The largest tensor that is stored in another dtype is there twice.
    """
    stored, held, largest = 0, 0, 0
    for name, tensor in tensors.items():
        size = tensor.size
        plain = tensor.dtype in _PLAIN and not name.endswith(_SCALES)
        if plain and f"{name}.absmax" not in tensors:
            size = math.prod(tensor.shape) * dtype.itemsize
            if _PLAIN[tensor.dtype] != dtype:
                largest = max(largest, size)
        stored += tensor.size
        held += size
    return max(stored, held) + largest


def hold_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Have the parameters that bitsandbytes has not quantised in the worker's dtype.

    transformers leaves those of a checkpoint that is quantised already as they are stored.
    Buffers stay too: it makes them itself, the frequencies of rotations in float32.
    """
    for parameter in model.parameters():
        # quantised ones are of classes of their own, and may be stored as floating-point numbers
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


@contextlib.contextmanager
def convertible(config: Any) -> Iterator[None]:
    """Within this, models are built of linear layers that bitsandbytes' integration converts.

    It converts nn.Linear itself and no subclass. Falcon's layers are one, with the same
    result, and would be left at 16 bits without a word.
    """
    if config.model_type != "falcon":
        yield
        return
    from transformers.models.falcon import modeling_falcon

    library: Any = modeling_falcon
    own, library.FalconLinear = library.FalconLinear, torch.nn.Linear
    try:
        yield
    finally:
        library.FalconLinear = own


def quiet() -> None:
    """Keep bitsandbytes from logging a line for each int8 matrix product that is not float16."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
