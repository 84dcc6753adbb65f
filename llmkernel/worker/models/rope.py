"""Rotary embeddings whose frequencies depend on the length of the text.

transformers decides by the largest position in the batch: one long request would turn
the frequencies of everybody, keys in the cache would not match, and the device would
be asked in every step. A worker decides once, by its context length:

- longrope: the short factors where the context fits the original length, which is
  what every text of that length gets; otherwise the long factors for all texts, which
  is what texts beyond the original length get.
- dynamic (NTK): within the original length, where nothing is scaled. Beyond it the
  frequencies grow with each text, which pages cannot share, so that is refused.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmkernel.errors import UnsupportedModel
from llmkernel.worker.models.families import natural_context, rope_types


def fix_length(model: nn.Module, context_length: int) -> None:
    """Fix the frequencies of every rotary embedding in `model` for texts up to `context_length`.

    Raises UnsupportedModel for dynamic frequencies beyond the model's own length.
    """
    for layer_type, kind in rope_types(model.config).items():
        if kind == "dynamic" and context_length > natural_context(model.config):
            raise UnsupportedModel(
                f"This model's rotary embedding scales dynamically beyond"
                f" {natural_context(model.config)} tokens, which is not supported."
                f" Start with a context_length up to that."
            )
        if kind in ("dynamic", "longrope"):
            for module in model.modules():
                if hasattr(module, "rope_type"):
                    _fix(module, layer_type, kind, context_length)


def _fix(module: Any, layer_type: str, kind: str, context_length: int) -> None:
    prefix = f"{layer_type}_" if layer_type else ""
    frequencies = getattr(module, f"{prefix}inv_freq")
    if kind == "longrope":
        keyword = {"layer_type": layer_type} if layer_type else {}
        fixed, _scaling = ROPE_INIT_FUNCTIONS[kind](
            module.config, frequencies.device, seq_len=context_length, **keyword
        )
        frequencies.copy_(fixed)
    # a kind that is neither dynamic nor longrope is left alone in the forward pass
    if layer_type:
        module.rope_type = {**module.rope_type, layer_type: "default"}
    else:
        module.rope_type = "default"
