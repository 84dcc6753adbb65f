"""Making a loaded transformers model paged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmkernel.errors import UnsupportedModel
from llmkernel.worker.models import falcon, rope
from llmkernel.worker.models.attention import ATTENTION, PagedLayer, PagedState
from llmkernel.worker.models.families import check_supported


def make_paged(model: nn.Module, state: PagedState) -> None:
    """Give every attention module of a transformers model its layer's part of `state`.

    May be called again with another state. Raises UnsupportedModel for a family outside
    the table, or for a context length that the model's positions cannot reach.
    """
    config: Any = model.config
    family = check_supported(config)
    positions = getattr(config, "n_positions", state.context_length)
    if positions < state.context_length:
        raise UnsupportedModel(
            f"This {family.name} model has positions for {positions} tokens, and"
            f" context_length is {state.context_length}. Start with a smaller context_length."
        )
    falcon.patch(model)
    if config._attn_implementation != ATTENTION:
        model.set_attn_implementation(ATTENTION)  # type: ignore[operator]
    rope.fix_length(model, state.context_length)
    # GPT-2 looks for padding in its input, which would wait for the device
    config.pad_token_id = None
    modules = attention_modules(model)
    assert len(modules) == len(state.pools), "one attention module a layer"
    for module, pool in zip(modules, state.pools, strict=True):
        module.llmkernel_layer = PagedLayer(state, pool)


def attention_modules(model: nn.Module) -> list[Any]:
    """The attention module of each layer, in order."""
    found: list[Any] = [
        module
        for module in model.modules()
        if type(module).__name__.endswith("Attention") and hasattr(module, "layer_idx")
    ]
    found.sort(key=lambda module: int(module.layer_idx))
    assert [module.layer_idx for module in found] == list(range(len(found)))
    return found


class LogitsHead:
    """From hidden states to logits, as the family's own forward pass ends.

    The runner calls it by itself, since it wants logits of few positions at a time.
    """

    def __init__(self, model: Any) -> None:
        self._project = model.get_output_embeddings()
        self._softcap = getattr(model.config, "final_logit_softcapping", None)
        self.vocab_size = int(self._project.out_features)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocab_size] of `hidden` [rows, hidden_size], in the model's dtype."""
        logits: Tensor = self._project(hidden)
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits


def split_model(model: Any) -> tuple[nn.Module, LogitsHead]:
    """The decoder without its head, and the head."""
    return model.base_model, LogitsHead(model)
