"""Models whose linear layers are bitsandbytes' 4-bit ones, without a checkpoint between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def quantise(model: Any, dtype: torch.dtype, device: str, nested: bool = False) -> Any:
    """Replace the linear layers of `model` but its head by 4-bit ones, on `device`."""
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer is not head:
                new = bnb.nn.Linear4bit(
                    layer.in_features,
                    layer.out_features,
                    bias=layer.bias is not None,
                    compute_dtype=dtype,
                    quant_type="nf4",
                    compress_statistics=nested,
                )
                new.load_state_dict(layer.state_dict())
                setattr(parent, name, new)
    return model.to(dtype).to(device).eval()
