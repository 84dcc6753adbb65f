"""Writers of GPTQ's and AWQ's layouts by plain loops over what their authors publish.

They share nothing with the readers: a word is put together number by number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import small_tokenizers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Quantised(NamedTuple):
    """weight[r][k] = (values[r][k] - zeros[g][r]) * scales[g][r], g = groups[k]."""

    values: Tensor
    zeros: Tensor
    scales: Tensor
    groups: Tensor

    @property
    def weight(self) -> Tensor:
        """In float32, where it is exact for scales of 16 bits."""
        zeros, scales = self.zeros[self.groups].T, self.scales[self.groups].T
        return (self.values - zeros).float() * scales.float()


def quantise(
    weight: Tensor,
    group_size: int = 128,
    *,
    symmetric: bool = True,
    shuffled: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Quantised:
    """`weight` [rows, columns] to the nearest of 16 levels of each group."""
    rows, columns = weight.shape
    length = columns if group_size == -1 else group_size
    groups = torch.arange(columns) // length
    if shuffled:
        groups = groups[torch.randperm(columns)]
    count = -(-columns // length)
    scales, zeros = torch.empty(count, rows), torch.empty(count, rows, dtype=torch.long)
    for group in range(count):
        part = weight[:, groups == group]
        if symmetric:
            scales[group] = part.abs().amax(1) / 8
            zeros[group] = 8
        else:
            low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            scales[group] = (high - low) / 15
            zeros[group] = (-low / scales[group]).round().clamp(1, 15)
    scales = scales.to(dtype)
    exact = weight / scales.float()[groups].T + zeros[groups].T
    return Quantised(exact.round().clamp(0, 15).long(), zeros, scales, groups)


def words(numbers: list[list[int]]) -> Tensor:
    """Rows of unsigned 32-bit words as the int32 that files hold."""
    return torch.from_numpy(np.array(numbers, dtype=np.uint32).view(np.int32))


def gptq(layer: Quantised, *, version: int = 1, borrow: bool = False) -> dict[str, Tensor]:
    """qweight, qzeros, scales and g_idx, zero points one less in version 1.

    `borrow` takes the one off each whole word, as GPTQModel does, so that a zero point of 0 is
    possible and borrows from its neighbour.
    """
    values, zeros = layer.values.tolist(), layer.zeros.tolist()
    rows, columns = layer.values.shape
    qweight = [
        [sum(values[row][8 * word + i] << 4 * i for i in range(8)) for row in range(rows)]
        for word in range(columns // 8)
    ]
    less = 1 if version == 1 and not borrow else 0
    qzeros = [
        [sum((group[8 * word + i] - less) << 4 * i for i in range(8)) for word in range(rows // 8)]
        for group in zeros
    ]
    if borrow:
        qzeros = [[(word - 0x11111111) % 2**32 for word in group] for group in qzeros]
    return {
        "qweight": words(qweight),
        "qzeros": words(qzeros),
        "scales": layer.scales,
        "g_idx": layer.groups.int(),
    }


def awq(layer: Quantised) -> dict[str, Tensor]:
    """qweight, qzeros and scales of version gemm."""
    values, zeros = layer.values.tolist(), layer.zeros.tolist()
    rows, columns = layer.values.shape

    def packed(row_of: list[int]) -> list[int]:
        return [
            sum(row_of[8 * word + AWQ_ORDER[i]] << 4 * i for i in range(8))
            for word in range(rows // 8)
        ]

    return {
        "qweight": words([packed([values[row][k] for row in range(rows)]) for k in range(columns)]),
        "qzeros": words([packed(group) for group in zeros]),
        "scales": layer.scales,
    }


GPTQ: dict[str, Any] = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 32,
    "desc_act": False,
    "sym": True,
    "checkpoint_format": "gptq",
}
AWQ: dict[str, Any] = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 32,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": None,
}


def save(
    folder: Path, config: Any, stored: dict[str, Any], *, kept: tuple[str, ...] = ("lm_head",)
) -> Any:
    """Save a random model in a format under `folder`/quantised; returns the same one in floats.

    `stored` is the quantization_config; linear layers are quantised but those whose name ends
    with one of `kept`.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms that do something
            parameter.data += 0.1 * torch.randn_like(parameter)
    target = folder / "quantised"
    model.save_pretrained(target)
    tensors = load_file(target / "model.safetensors")
    for name, module in model.named_modules():
        conv = type(module).__name__ == "Conv1D"
        if not (conv or isinstance(module, torch.nn.Linear)) or name.endswith(kept):
            continue
        weight = module.weight.data.T if conv else module.weight.data
        layer, parts = _quantised(weight, stored)
        module.weight.data = layer.weight.T.contiguous() if conv else layer.weight
        del tensors[f"{name}.weight"]
        tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(values | {"quantization_config": stored}))
    small_tokenizers.fast().save_pretrained(target)
    return model


def _quantised(weight: Tensor, stored: dict[str, Any]) -> tuple[Quantised, dict[str, Tensor]]:
    size = stored.get("group_size", 128)
    if stored["quant_method"] == "awq":
        layer = quantise(weight, size, symmetric=not stored.get("zero_point", True))
        return layer, awq(layer)
    layer = quantise(
        weight, size, symmetric=stored.get("sym", True), shuffled=stored.get("desc_act", False)
    )
    version = 2 if stored.get("checkpoint_format") == "gptq_v2" else 1
    return layer, gptq(layer, version=version)
