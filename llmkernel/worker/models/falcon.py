"""Falcon, whose attention does not go through transformers' attention interface.

Both decoder shapes: the first (7B) has one key head for all query heads or one each,
the new one (40B, 180B, Falcon 2) groups of query heads, each followed by its key and
value in the fused projection. transformers repeats keys and values for every query
head there; this does not.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.falcon import modeling_falcon

from llmkernel.worker.models.attention import ATTENTION, paged_attention_forward


class PagedFalconAttention(modeling_falcon.FalconAttention):
    """Falcon's attention over pages, called as the original is."""

    def forward(  # type: ignore[override]  # of the original's arguments, those that are used
        self,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attention of a packed step: `hidden_states` [1, tokens, hidden] to the same shape."""
        assert alibi is None, "refused when the model was loaded"
        query, key, value = self._heads(self.query_key_value(hidden_states))
        rotate: Any = modeling_falcon.apply_rotary_pos_emb
        query, key = rotate(query, key, *position_embeddings)
        output, _weights = paged_attention_forward(
            self, query, key, value, attention_mask, scaling=self.inv_norm_factor
        )
        return self.dense(output.flatten(2)), None

    def _heads(self, fused: Tensor) -> tuple[Tensor, ...]:
        """Split [1, tokens, fused] into query, key and value [1, heads, tokens, head_dim]."""
        if not self.new_decoder_architecture and not self.multi_query:
            heads = fused.view(*fused.shape[:2], self.num_heads, 3, self.head_dim)
            return tuple(part.transpose(1, 2) for part in heads.unbind(-2))
        kv_heads = self.num_kv_heads or 1
        groups = fused.view(*fused.shape[:2], kv_heads, -1, self.head_dim)
        parts = groups[..., :-2, :], groups[..., -2:-1, :], groups[..., -1:, :]
        return tuple(part.flatten(2, 3).transpose(1, 2) for part in parts)


# so that loading with this name builds the modules above
modeling_falcon.FALCON_ATTENTION_CLASSES[ATTENTION] = PagedFalconAttention


def patch(model: Any) -> None:
    """Make Falcon modules that were built for another attention paged; the weights stay."""
    for module in model.modules():
        if isinstance(module, modeling_falcon.FalconAttention):
            module.__class__ = PagedFalconAttention
            # transformers refuses to switch Falcon; this is what keeps it from making masks
            model.config._attn_implementation = ATTENTION
