"""What transformers' model code calls for attention, and the state that its modules share.

The families call an attention function by name; ours is registered as `llmkernel_paged`.
What it needs of the step lies in one `PagedState` that every attention module was
given, because several families drop keyword arguments on the way down.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from llmkernel import environment
from llmkernel.worker.kernels.cluster_attention import RopedAttention, roped_attention
from llmkernel.worker.kernels.paged_attention import (
    DecodeAttention,
    Options,
    PagedStep,
    Pool,
    PrefillAttention,
    decode_attention,
    paged_attention,
)
from llmkernel.worker.models.families import kv_shape

ATTENTION = "llmkernel_paged"
"""Give it as `attn_implementation` when a model is loaded."""
_log = logging.getLogger(__name__)


class PagedState:
    """Keys and values of all layers, and the step that attention works on.

    `num_blocks` blocks (ids below it are for sequences) and one more that stays zero.
    `step` is set before each forward pass.
    """

    def __init__(
        self,
        config: Any,
        *,
        num_blocks: int,
        block_size: int,
        context_length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        layers, heads, head_dim = kv_shape(config)
        shape = (num_blocks + 1, block_size, heads, head_dim)
        self.pools = [
            Pool(
                torch.zeros(shape, dtype=dtype, device=device),
                torch.zeros(shape, dtype=dtype, device=device),
            )
            for _ in range(layers)
        ]
        self.context_length = context_length
        self.step: PagedStep | None = None
        self.decode = decode_attention_for(device)
        self.prefill = prefill_attention_for(device)
        self.roped = roped_attention_for(device)
        """Rotation and attention of decode rows in one, where there is a kernel for it."""


def decode_attention_for(device: torch.device) -> DecodeAttention:
    """The kernel for decode rows on a GPU where it is asked for, else the plain reference."""
    if device.type != "cuda" or not environment.own_kernels():
        return decode_attention
    try:
        from llmkernel.worker.kernels.split_attention import split_decode_attention
    except ImportError as error:
        _log.warning("decode attention is torch's, since Triton is missing: %s", error)
        return decode_attention
    return split_decode_attention


def prefill_attention_for(device: torch.device) -> PrefillAttention | None:
    """The kernel for prefill rows, where `decode_attention_for` has one; None is the reference."""
    if decode_attention_for(device) is decode_attention:
        return None
    from llmkernel.worker.kernels.tiled_attention import tiled_prefill_attention

    return tiled_prefill_attention


def roped_attention_for(device: torch.device) -> RopedAttention | None:
    """The kernel that rotates, writes keys and attends to them, on GPUs that can."""
    if decode_attention_for(device) is decode_attention:
        return None
    from llmkernel.worker.kernels.split_attention import starts_early

    return roped_attention if starts_early(device) else None


class PagedLayer:
    """What one attention module holds: its pool and the state it shares with the others."""

    __slots__ = ("options", "pool", "state")

    def __init__(self, state: PagedState, pool: Pool) -> None:
        self.state = state
        self.pool = pool
        self.options: Options | None = None
        """What the module asked for last."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        """Attention of the step: [1, heads, tokens, head_dim] each to [1, tokens, heads, head_dim]."""
        step = self.state.step
        assert step is not None, "the runner sets the step before the forward pass"
        self.options = options
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        decode, prefill = self.state.decode, self.state.prefill
        return paged_attention(query, key, value, self.pool, step, options, decode, prefill)[None]


def paged_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: `query` [1, heads, tokens, head_dim].

    Returns [1, tokens, heads, head_dim] and no weights. Other keywords belong to
    training or to other implementations.
    """
    assert attention_mask is None, "a paged step is described by its block tables"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    options = Options(scale, sliding_window, softcap, s_aux)
    return cast(PagedLayer, module.llmkernel_layer).attend(query, key, value, options), None


AttentionInterface.register(ATTENTION, paged_attention_forward)
