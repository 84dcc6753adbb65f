"""4-bit layers of a loaded model on the project's own kernels, those of one input merged.

bitsandbytes' layers are found by their class; each group of them that reads the same input
(queries, keys and values; gate and up) becomes one product. Every layer is compared with what
bitsandbytes makes of it before it takes its place; a model or a GPU that does not fit keeps
bitsandbytes' own.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from llmkernel.worker.kernels import four_bit, plans, tiles
from llmkernel.worker.kernels.tiles import Packed

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that families give the same input, in the order in which they call them."""
_BLOCK = 64
_TOLERANCE = 2e-2
"""Relative error against the layer that is replaced; a wrong layout is off by more than 1."""
_log = logging.getLogger(__name__)


class PackedLinear(nn.Module):
    """A linear layer of 4-bit weights [out_features, in_features].

    `kernels` says whether this project's kernels compute it on a GPU, else torch does; they
    take the scales of `tiles.narrow`.
    """

    weights: Tensor
    scales: Tensor
    offsets: Tensor | None
    order: Tensor | None
    bias: Tensor | None

    def __init__(self, packed: Packed, bias: Tensor | None, *, kernels: bool = True) -> None:
        super().__init__()
        self.kernels = kernels
        self.in_features, self.out_features = packed.columns, packed.rows
        self.hold(packed)
        self.register_buffer("bias", bias)

    def hold(self, packed: Packed) -> None:
        """Have the matrix in this form."""
        self.register_buffer("weights", packed.weights)
        self.register_buffer("scales", packed.scales)
        self.register_buffer("offsets", packed.offsets)
        self.register_buffer("order", packed.order)
        self.code = packed.code
        self._matrix: Packed | None = None

    @property
    def packed(self) -> Packed:
        """Its matrix. Looking four buffers up costs more than launching a kernel, so it is kept."""
        if self._matrix is None:
            sizes = (self.out_features, self.in_features)
            tensors = (self.weights, self.scales)
            self._matrix = Packed(*tensors, self.code, *sizes, self.offsets, self.order)
        return self._matrix

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The buffers become others."""
        self._matrix = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        output = self.product(x.reshape(-1, self.in_features).contiguous())
        return output.view(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor, **more: Any) -> Tensor:
        """`four_bit.product` of `x` [tokens, in_features] with `more` keywords."""
        if self.kernels:
            return four_bit.product(x, self.packed, self.bias, **more)
        assert not more, "layers are fused on the kernels only"
        return four_bit.plain_product(x, self.packed, self.bias)


class Merged:
    """Layers of one input as one product. The first one asked computes for all."""

    def __init__(self, linear: PackedLinear, sizes: list[int]) -> None:
        self.linear = linear
        self._sizes = sizes
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def output(self, index: int, x: Tensor) -> Tensor:
        """What layer `index` makes of `x`."""
        if self._input is not x:
            self._input, self._outputs = x, self.linear(x).split(self._sizes, -1)
        output = self._outputs[index]
        if index == len(self._sizes) - 1:  # nobody else asks; the memory is wanted
            self._input, self._outputs = None, ()
        return output


class Part(nn.Module):
    """One layer of a `Merged`; the first of them holds the weights."""

    def __init__(self, merged: Merged, index: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._index = index
        self._merged = [merged]  # in a list, so that it is no submodule of each part
        if index == 0:
            self.linear = merged.linear

    @property
    def merged(self) -> Merged:
        """What computes it."""
        return self._merged[0]

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return self.merged.output(self._index, x)


def use_kernels(model: nn.Module, dtype: torch.dtype) -> int:
    """Put the packed layers of a model on the kernels, those of one input merged; how many it were.

    Each is compared with what torch makes of it before. The model is on its device and in
    evaluation mode; on a GPU its activations have `dtype`, float16 or bfloat16.
    """
    replaced = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, PackedLinear) or layer.kernels:
            continue
        x = _random(layer.in_features, layer.weights.device, dtype)
        expected = four_bit.plain_product(x.float(), layer.packed)
        try:
            packed = tiles.narrow(layer.packed)
        except ValueError as error:
            _log.warning("%s keeps torch's product: %s", name, error)
            continue
        off = _error(four_bit.product(x, packed), expected)
        if off < _TOLERANCE:
            layer.hold(packed)
            layer.kernels = True
            replaced += 1
        else:
            _log.warning("%s keeps torch's product: relative error %g", name, off)
    for parent in list(model.modules()):
        for names in GROUPS:
            _merge_packed(parent, names)
    return replaced


def agrees(layer: PackedLinear, dtype: torch.dtype) -> bool:
    """Whether the kernels make of a layer what torch does, for activations of `dtype`."""
    x = _random(layer.in_features, layer.weights.device, dtype)
    expected = four_bit.plain_product(x.float(), layer.packed)
    return _error(four_bit.product(x, layer.packed), expected) < _TOLERANCE


def _merge_packed(parent: nn.Module, names: tuple[str, ...]) -> None:
    """Make one product of the layers `names`, where all are on the kernels and of one kind."""
    layers: list[Any] = [getattr(parent, name, None) for name in names]
    if not all(isinstance(layer, PackedLinear) and layer.kernels for layer in layers):
        return
    joined = _joined([layer.packed for layer in layers])
    biases = [layer.bias for layer in layers]
    if joined is None or len({bias is None for bias in biases}) != 1:
        return
    bias = None if biases[0] is None else torch.cat(biases)
    _place(parent, names, _parts(PackedLinear(joined, bias), layers))


def pack_layers(model: nn.Module) -> int:
    """Replace the 4-bit layers of `model` where the kernels serve them; how many it were.

    The model is on its device and in evaluation mode.
    """
    replaced = 0
    for parent in list(model.modules()):
        for names in GROUPS:
            layers = [getattr(parent, name, None) for name in names]
            if all(map(_fits, layers)) and len({layer.in_features for layer in layers}) == 1:  # type: ignore[union-attr]
                replaced += _merge(parent, names, layers)
        for name, layer in list(parent.named_children()):
            if _fits(layer):
                replaced += _replace(parent, name, layer)
    return replaced


def _fits(layer: Any) -> bool:
    if type(layer).__name__ != "Linear4bit" or getattr(layer.weight, "quant_state", None) is None:
        return False
    state, (rows, columns) = layer.weight.quant_state, (layer.out_features, layer.in_features)
    whole = rows % plans.ROWS == 0 and columns % plans.COLUMNS == 0
    plain = layer.weight.dtype == torch.uint8 and state.blocksize == _BLOCK
    return whole and plain and not getattr(state, "packing_format_for_cpu", False)


def _merge(parent: nn.Module, names: tuple[str, ...], layers: list[Any]) -> int:
    try:
        packed = _joined([_packed(layer) for layer in layers])
    except ValueError as error:
        _log.warning("%s are not merged: %s", ", ".join(names), error)
        return 0
    if packed is None:
        return 0
    biases = [layer.bias for layer in layers]
    if any(bias is None for bias in biases) and not all(bias is None for bias in biases):
        return 0
    bias = None if biases[0] is None else torch.cat([_bias(layer) for layer in layers])
    parts = _parts(PackedLinear(packed, bias), layers)
    x = _probe(layers[0])
    if not all(_agree(part(x), layer, x) for part, layer in zip(parts, layers, strict=True)):
        return 0
    _place(parent, names, parts)
    return len(layers)


def _parts(linear: PackedLinear, layers: list[Any]) -> list[Part]:
    """What takes the places of `layers`, whose rows are those of `linear` one after the other."""
    merged = Merged(linear, [layer.out_features for layer in layers])
    return [
        Part(merged, index, layer.in_features, layer.out_features)
        for index, layer in enumerate(layers)
    ]


def _place(parent: nn.Module, names: tuple[str, ...], parts: list[Part]) -> None:
    for name, part in zip(names, parts, strict=True):
        setattr(parent, name, part)


def _replace(parent: nn.Module, name: str, layer: Any) -> int:
    try:
        linear = PackedLinear(_packed(layer), _bias(layer))
    except ValueError as error:
        _log.warning("%s keeps bitsandbytes' kernel: %s", name, error)
        return 0
    x = _probe(layer)
    if not _agree(linear(x), layer, x):
        return 0
    setattr(parent, name, linear)
    return 1


def _bias(layer: Any) -> Any:
    """In what the layer computes in, as bitsandbytes would add it."""
    return None if layer.bias is None else layer.bias.data.to(_dtype(layer))


def _dtype(layer: Any) -> torch.dtype:
    return layer.compute_dtype or torch.bfloat16


def _packed(layer: Any) -> Packed:
    """For the kernels. Raises ValueError where they cannot have it."""
    state = layer.weight.quant_state
    scales = state.absmax
    if state.nested:
        from bitsandbytes.functional import dequantize_blockwise

        scales = dequantize_blockwise(scales, state.state2) + state.offset
    rows, columns = layer.out_features, layer.in_features
    nibbles = layer.weight.data.view(rows, columns // 2)
    return tiles.narrow(tiles.pack(nibbles, scales.view(rows, columns // _BLOCK), state.code))


def _joined(parts: list[Packed]) -> Packed | None:
    """One matrix of all rows; None where tables, columns or their order are not the same."""
    first = parts[0]
    if not all(_alike(first, part) for part in parts):
        return None
    offsets = None
    if any(part.offsets is not None for part in parts):
        given = [(part.scales, part.offsets) for part in parts]
        offsets = torch.cat(
            [torch.zeros_like(s, dtype=torch.float32) if o is None else o for s, o in given]
        )
    return first._replace(
        weights=torch.cat([part.weights for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        rows=sum(part.rows for part in parts),
        offsets=offsets,
    )


def _alike(one: Packed, other: Packed) -> bool:
    if one.columns != other.columns or one.group != other.group:
        return False
    orders = (one.order, other.order)
    same_order = orders[0] is orders[1] or (
        orders[0] is not None and orders[1] is not None and torch.equal(orders[0], orders[1])
    )
    return same_order and one.code == other.code


def _probe(layer: Any) -> Tensor:
    """Activations of two tokens, which show a wrong layout as well as any."""
    return _random(layer.in_features, layer.weight.device, _dtype(layer))


def _random(columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(2, columns, generator=generator, device=device, dtype=dtype)


def _error(output: Tensor, expected: Tensor) -> float:
    return float((output.float() - expected).norm() / expected.norm())


@torch.no_grad()
def _agree(output: Tensor, layer: Any, x: Tensor) -> bool:
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    bias = None if layer.bias is None else layer.bias.float()
    expected = nn.functional.linear(x.float(), weight, bias)
    error = _error(output, expected)
    if not error < _TOLERANCE:  # not-a-number too
        _log.warning("a 4-bit layer keeps bitsandbytes' kernel: relative error %g", error)
        return False
    return True
