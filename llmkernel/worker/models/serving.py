"""Whose code computes a model, in words for `status`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from llmkernel.worker.models.fused import FusedLayer, tells_apart
from llmkernel.worker.models.packed import PackedLinear

_BITSANDBYTES = ("Linear4bit", "Linear8bitLt")


def describe(model: Any, *, split_attention: bool, graphs: bool) -> str:
    """What a forward pass of `model` runs on, such as "llmkernel's 4-bit products, CUDA graphs"."""
    modules = list(model.modules())
    found = Counter(filter(None, map(_product, modules)))
    parts = list(found) or ["torch's products"]
    if len(found) > 1:
        parts = [f"{name} ({count})" for name, count in found.most_common()]
    fused = sum(isinstance(module, FusedLayer) for module in modules)
    if fused:
        parts.append(f"{fused} of {len(model.base_model.layers)} layers fused")
    if split_attention:
        parts.append("cluster attention" if tells_apart(model) else "split attention")
    if graphs:
        parts.append("CUDA graphs")
    return ", ".join(parts)


def _product(module: nn.Module) -> str | None:
    if isinstance(module, PackedLinear):
        return "llmkernel's 4-bit products" if module.kernels else "torch on packed weights"
    return "bitsandbytes' products" if type(module).__name__ in _BITSANDBYTES else None
