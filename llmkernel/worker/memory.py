"""How many bytes a model takes, and how many there are."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import nn

from llmkernel.worker.budget import Widths

if TYPE_CHECKING:
    from llmkernel.worker.quantization import Quantized

_SCALE_BYTES = 4
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def free_bytes(device: torch.device) -> int:
    """Bytes that could be allocated on a device now: those of the driver, or of this machine.

    On a GPU not more than `budget.impose` has left to this process. On the CPU a limit of the container counts where it is tighter than the machine.
    """
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device)
        # what torch keeps for later counts as free
        kept = torch.cuda.memory_reserved(device) - allocated
        free, total = torch.cuda.mem_get_info(device)
        allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
        return max(min(free + kept, allowed - allocated), 0)
    left = [psutil.virtual_memory().available]
    for limit, usage, stat in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            used = int(Path(usage).read_text()) - _reclaimable(Path(stat))
            left.append(int(Path(limit).read_text()) - used)
    return max(min(left), 0)


def empty_model(config: Any, **options: Any) -> nn.Module:
    """The model of a configuration without memory for its weights; `options` are from_config's."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(copy.deepcopy(config), trust_remote_code=False, **options)  # type: ignore[no-any-return]


def expected_bytes(model: nn.Module, quantized: Quantized, dtype: torch.dtype) -> int:
    """Bytes that the weights of an `empty_model` will take on the device.

    bitsandbytes quantises linear layers but the output head; embeddings, norms,
    biases and the fused experts of a mixture stay in `dtype`.
    """
    linear = _quantised_weights(model) if quantized.bits else set()
    total = 0
    for parameter in model.parameters():
        if parameter in linear and quantized.bits:
            total += parameter.numel() * quantized.bits // 8
            total += _SCALE_BYTES * _scales(parameter, quantized)
        else:
            total += parameter.numel() * dtype.itemsize
    return total


def peak_bytes(model: nn.Module, quantized: Quantized, dtype: torch.dtype) -> int:
    """The same while loading: the largest tensor is there twice while it is quantised."""
    largest = max((parameter.numel() for parameter in model.parameters()), default=0)
    extra = largest * dtype.itemsize if quantized.on_the_fly else 0
    return expected_bytes(model, quantized, dtype) + extra


def taken_bytes(model: nn.Module) -> int:
    """Bytes of a loaded model's weights, scales included, shared ones once."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        tensors += [
            part
            for part in (getattr(state, "absmax", None), getattr(parameter, "SCB", None))
            if part is not None
        ]
    storages = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return sum(storages.values())


def widths(model: nn.Module, vocabulary: int) -> Widths:
    """Of an `empty_model`: twice its largest layer, since layers of one input may be merged."""
    shapes = [tuple(weight.shape) for weight in _quantised_weights(model)] or [(0, 0)]
    largest = max(rows * columns for rows, columns in shapes)
    return Widths(2 * largest, 2 * max(map(max, shapes)), vocabulary)


def _quantised_weights(model: nn.Module) -> set[torch.Tensor]:
    from transformers.pytorch_utils import Conv1D

    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        module.weight
        for module in model.modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head
    }


def _scales(weight: torch.Tensor, quantized: Quantized) -> int:
    from llmkernel.worker.quantization import BLOCK

    return weight.numel() // BLOCK if quantized.bits == 4 else weight.shape[0]


def _reclaimable(stat: Path) -> int:
    lines = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
    return int(lines.get("inactive_file", lines.get("total_inactive_file", "0")))
