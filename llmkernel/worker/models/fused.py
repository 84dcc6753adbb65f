"""Decoder layers in few kernels: norms, rotation and gates as parts of the products beside them.

A layer is recognised by its structure: pre-norm with RMS, attention of rotated queries and keys
(with or without norms of their own), a gated SiLU network, all projections packed. So are those
of Llama, Mistral, Qwen 2 and Qwen 3. Each is compared with transformers' own code before it takes
its place; what is not recognised or not equal keeps that code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmkernel.worker.kernels import cluster_attention, layer, plans, tiles
from llmkernel.worker.kernels.four_bit import Norm
from llmkernel.worker.kernels.paged_attention import DecodeRows, PagedStep, Pool, PrefillRow, attend
from llmkernel.worker.models.attention import PagedLayer, PagedState
from llmkernel.worker.models.packed import PackedLinear, Part

_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_NETWORK = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_SILU = {"SiLU", "SiLUActivation"}
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Relative error against transformers' code, which rounds after each operation."""
_CHANGING = ("dynamic", "longrope")
"""Kinds of rotary embeddings whose frequencies depend on the text, if nobody has fixed them."""
PROBES = (9, 1)
"""Tokens of the steps that are compared: a chunk of a prompt, and a decode row after it."""
_LOAD_ERRORS = (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)
"""What code that was taken for another may raise."""
_log = logging.getLogger(__name__)


class Projections(NamedTuple):
    """The matrices of a layer: `gate_up` is of `tiles.gated`, once it is fused."""

    qkv: PackedLinear
    output: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear


class FusedLayer(nn.Module):
    """A decoder layer; called as transformers' model calls its own."""

    def __init__(self, original: nn.Module, projections: Projections) -> None:
        super().__init__()
        attention: Any = original.self_attn
        self.qkv, self.output, self.gate_up, self.down = projections
        self._paged: PagedLayer = attention.llmkernel_layer
        self._input_norm = _norm_of(original.input_layernorm)
        self._network_norm = _norm_of(original.post_attention_layernorm)
        self._head_norms: layer.HeadNorms | None = None
        if hasattr(attention, "q_norm"):
            query, key = _norm_of(attention.q_norm), _norm_of(attention.k_norm)
            self._head_norms = (query.weight, key.weight, query.eps)
        if hasattr(original, "attention_type"):
            self.attention_type = original.attention_type

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """[1, tokens, hidden] to the same."""
        cosines, sines = position_embeddings
        hidden = self.attend(hidden_states[0], (cosines[0], sines[0]))
        return self.feed_forward(hidden)[None]

    def products(self) -> list[tuple[PackedLinear, bool, bool]]:
        """Its matrices, whether a norm is part of their product, and whether a gate is."""
        return [
            (self.qkv, True, False),
            (self.output, False, False),
            (self.gate_up, True, True),
            (self.down, False, False),
        ]

    @property
    def pool(self) -> Pool:
        """Keys and values of the layer."""
        return self._paged.pool

    def attention_kernels(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Name and sizes of each kernel that its attention may launch, beside Triton's."""
        if self._paged.state.roped is not None:
            normed = self._head_norms is not None
            width = self.qkv.packed.rows
            yield from cluster_attention.kernels_of(self.pool, width, normed=normed)

    def attend(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """The first half: [tokens, hidden] to the same; keys and values are written."""
        state, pool, options = self._paged.state, self._paged.pool, self._paged.options
        assert state.step is not None, "the runner sets the step before the forward pass"
        assert options is not None, "transformers' layer has run"
        step, norms = state.step, self._head_norms
        merged = self.qkv.product(hidden, norm=self._input_norm)
        if state.roped is not None and cluster_attention.serves(step, pool, merged.shape[1]):
            assert step.decode is not None, "it serves decode rows alone"
            places, rows = step.slot_mapping, step.decode
            seen = state.roped(merged, rotary, pool, places, rows, options, norms)
        else:
            query = layer.rope_write(merged, rotary, pool, step.slot_mapping, norms)
            seen = attend(query, pool, step, options, state.decode, state.prefill)
        return self.output.product(seen.flatten(1), residual=hidden)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """The second half: [tokens, hidden] to the same."""
        inner = self.gate_up.product(hidden, norm=self._network_norm, gated=True)
        return self.down.product(inner, residual=hidden)


class FusedNorm(nn.Module):
    """An RMS norm by one kernel."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.weight, self._eps = _norm_of(original)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same."""
        return layer.rms_norm(x.reshape(-1, x.shape[-1]), self.weight, self._eps).view(x.shape)


class FusedRotary(nn.Module):
    """A rotary embedding whose frequencies stay as they are, by one kernel."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self._frequencies: Tensor = original.inv_freq.float()
        self._scaling = float(original.attention_scaling)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, tokens, head_dim] of `position_ids` [1, tokens]."""
        found = layer.rotary(position_ids[0], self._frequencies, self._scaling, x.dtype)
        return found[0][None], found[1][None]


@torch.inference_mode()
def fuse_layers(model: Any, state: PagedState) -> int:
    """Replace the layers of a paged model where they can be fused; how many it were."""
    backbone = model.base_model
    layers = getattr(backbone, "layers", None)
    rotary = getattr(backbone, "rotary_emb", None)
    if not isinstance(layers, nn.ModuleList) or rotary is None:
        return 0
    replaced = 0
    for index, original in enumerate(layers):
        fused = _fused(original, rotary, state) if _recognised(original) else None
        if fused is not None:
            layers[index] = fused
            replaced += 1
    if replaced and _is_norm(backbone.norm):
        backbone.norm = FusedNorm(backbone.norm)
    if replaced and _same_rotary(rotary, backbone.norm.weight, state.context_length):
        backbone.rotary_emb = FusedRotary(rotary)
    if replaced:
        _log.info("%d of %d layers are fused", replaced, len(layers))
    return replaced


def candidates(model: Any) -> Iterator[FusedLayer]:
    """The layers that `fuse_layers` will try, not to be called: gates and ups are not in turns yet."""
    layers = getattr(model.base_model, "layers", None)
    for original in layers if isinstance(layers, nn.ModuleList) else ():
        if _recognised(original):
            yield FusedLayer(original, _projections(original))


def tells_apart(model: nn.Module) -> bool:
    """Whether some layer computes decode rows that stand apart in another way."""
    fused = (module for module in model.modules() if isinstance(module, FusedLayer))
    return any(kernel for layer in fused for kernel in layer.attention_kernels())


def _recognised(original: nn.Module) -> bool:
    parts = dict(original.named_children())
    if parts.keys() != _LAYER:
        return False
    attention, network = dict(parts["self_attn"].named_children()), parts["mlp"]
    norms = attention.keys() - _ATTENTION
    inner = dict(network.named_children())
    if norms not in (set(), {"q_norm", "k_norm"}) or inner.keys() != _NETWORK:
        return False
    packed = (attention["o_proj"], inner["down_proj"])
    merged = (attention["q_proj"], attention["v_proj"], inner["gate_proj"], inner["up_proj"])
    plain = (parts["input_layernorm"], parts["post_attention_layernorm"])
    return (
        all(isinstance(part, PackedLinear) and part.kernels for part in packed)
        and all(isinstance(part, Part) for part in merged)
        and all(map(_is_norm, (*plain, *(attention[name] for name in norms))))
        and type(inner["act_fn"]).__name__ in _SILU
    )


def _is_norm(module: Any) -> bool:
    return hasattr(module, "variance_epsilon") and not list(module.children())


def _norm_of(module: Any) -> Norm:
    return Norm(module.weight.data, module.variance_epsilon)


def _projections(original: Any) -> Projections:
    attention, network = original.self_attn, original.mlp
    gate_up = network.gate_proj.linear
    return Projections(attention.q_proj.linear, attention.o_proj, gate_up, network.down_proj)


def _fused(original: Any, rotary: nn.Module, state: PagedState) -> FusedLayer | None:
    """The layer fused; None where it is not equal to the original, whatever the reason."""
    plain = _projections(original)
    fused = FusedLayer(original, plain._replace(gate_up=_gated(plain.gate_up)))
    if _equal(fused, original, rotary, state):
        return fused
    roped, state.roped = state.roped, None
    if roped is not None and _equal(fused, original, rotary, state):
        _log.warning("rotation and attention stay apart")
        return fused
    state.roped = roped
    return None


def _equal(fused: FusedLayer, original: Any, rotary: nn.Module, state: PagedState) -> bool:
    try:
        return all(_agree(fused, original, rotary, state, count) for count in PROBES)
    except _LOAD_ERRORS:
        _log.exception("a layer keeps transformers' code")
        return False
    finally:
        state.step = None


def _gated(merged: PackedLinear) -> PackedLinear:
    """Of gate and up one after the other the same in turns."""
    whole = merged.packed
    half = whole.rows // 2
    cut = tiles.split(whole, half)
    bias = merged.bias
    if bias is not None:
        bias = bias.view(2, -1, plans.ROWS).transpose(0, 1).flatten()
    return PackedLinear(tiles.gated(*cut), bias)


def _same_rotary(original: Any, like: Tensor, context_length: int) -> bool:
    """Whether `FusedRotary` gives what the original does, up to the last position."""
    frequencies = getattr(original, "inv_freq", None)
    if not isinstance(frequencies, Tensor) or getattr(original, "rope_type", None) in _CHANGING:
        return False
    positions = torch.linspace(0, context_length - 1, 64, device=like.device).long()[None]
    hidden = like.expand(1, 1, -1)
    try:
        mine, expected = FusedRotary(original)(hidden, positions), original(hidden, positions)
    except _LOAD_ERRORS:
        _log.exception("the rotary embedding keeps transformers' code")
        return False
    most = _TOLERANCE[like.dtype]
    return all(
        torch.allclose(*both, rtol=0, atol=most) for both in zip(mine, expected, strict=True)
    )


def _agree(fused: FusedLayer, original: Any, rotary: Any, state: PagedState, count: int) -> bool:
    """Compare both halves on `count` tokens in the block of the padding, and what is written.

    One token is a decode row that attends to those of the probe before. What is normalised may
    have any size: so small, it is nothing in the sum with what the halves add to it, and that is
    compared.
    """
    weight = original.input_layernorm.weight
    generator = torch.Generator(weight.device).manual_seed(count)
    hidden = torch.randn(
        count, weight.shape[0], generator=generator, device=weight.device, dtype=weight.dtype
    )
    hidden *= 1e-2
    pool = fused.pool
    first = 0 if count > 1 else min(PROBES[0], pool.block_size - 1)
    positions = torch.arange(first, first + count, device=weight.device)
    table = torch.zeros(1, dtype=torch.int64, device=weight.device)
    state.step = PagedStep(positions, None, [PrefillRow(0, count, 0, table)])
    if count == 1:
        row = DecodeRows(table[None], table, positions + 1, 1, apart=True)
        state.step = PagedStep(positions, row, [])
    embeddings = rotary(hidden[None], position_ids=7 * positions[None])
    seen = original.self_attn(
        hidden_states=original.input_layernorm(hidden[None]),
        position_embeddings=embeddings,
        attention_mask=None,
    )[0][0]
    fed = original.mlp(original.post_attention_layernorm(hidden[None]))[0]
    written = [one.flatten(0, 1)[positions] for one in pool]
    mine = fused.attend(hidden, (embeddings[0][0], embeddings[1][0]))
    same = [_near(one.flatten(0, 1)[positions], by) for one, by in zip(pool, written, strict=True)]
    near = _near(mine, seen + hidden) and _near(fused.feed_forward(hidden), fed + hidden)
    return near and all(same)


def _near(mine: Tensor, expected: Tensor) -> bool:
    error = ((mine.float() - expected.float()).norm() / expected.float().norm()).item()
    if not error < _TOLERANCE[expected.dtype]:  # not-a-number too
        _log.warning("transformers' code stays: relative error %g", error)
        return False
    return True
