"""A model as named tensors and the layers that are packed, and put together from them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmkernel.worker.cache import transfer
from llmkernel.worker.cache.manifest import Layer, Part, Torn
from llmkernel.worker.kernels.tiles import Packed
from llmkernel.worker.models import packed
from llmkernel.worker.models.packed import Merged, PackedLinear


class Unkept(Exception):
    """The model has something that cannot be put together again, and what."""


class Taken(NamedTuple):
    """What a model consists of; see `manifest.Manifest`."""

    tensors: dict[str, Tensor]
    aliases: dict[str, str]
    layers: list[Layer]


def take(model: nn.Module, empty: nn.Module) -> Taken:
    """The parts of a loaded `model`, of which `empty` is what its configuration makes.

    Raises Unkept where the two differ by more than packed layers, or nothing is packed.
    """
    layers = [_layer(name, linear, parts) for name, linear, parts in _packed_layers(model)]
    if not layers:
        raise Unkept("none of its layers is packed")
    _check_rest(model, empty, layers)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in _named(model, layers):
        if not transfer.holds(tensor):
            raise Unkept(f"{name} is {tensor.dtype}")
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor
        else:
            aliases[name] = known
    return Taken(tensors, aliases, layers)


def put_together(empty: Any, taken: Taken) -> nn.Module:
    """Make the model of `empty`, the one of its configuration without memory, and what was taken.

    Raises Torn where they do not fit each other; `empty` cannot be used then.
    """
    tensors = taken.tensors | {name: taken.tensors[first] for name, first in taken.aliases.items()}
    parameters: dict[int, nn.Parameter] = {}
    try:
        for layer in taken.layers:
            _place(empty, layer, tensors)
        inside = _inside(taken.layers)
        for name in tensors:
            if not name.startswith(inside):
                _assign(empty, name, tensors[name], parameters)
    except (AttributeError, KeyError, TypeError) as error:
        raise Torn(f"it does not fit the model: {error}") from None
    rest = [*empty.named_parameters(), *empty.named_buffers()]
    if absent := [name for name, tensor in rest if tensor.is_meta]:
        raise Torn(f"it lacks {absent[0]}")
    return empty.eval()  # type: ignore[no-any-return]


def _packed_layers(
    model: nn.Module,
) -> Iterator[tuple[str, PackedLinear, list[tuple[str, packed.Part]]]]:
    """Name, layer and the parts that it serves."""
    parts: dict[int, list[tuple[str, packed.Part]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, packed.Part):
            parts.setdefault(id(module.merged.linear), []).append((name, module))
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            yield name, module, parts.get(id(module), [])


def _layer(name: str, linear: PackedLinear, parts: list[tuple[str, packed.Part]]) -> Layer:
    fields = linear.packed._asdict()
    return Layer(
        name,
        sizes={field: value for field, value in fields.items() if isinstance(value, int)},
        code=linear.code,
        tensors=[field for field, value in fields.items() if isinstance(value, Tensor)],
        bias=linear.bias is not None,
        kernels=linear.kernels,
        parts=[Part(name, part.out_features) for name, part in parts],
    )


def _place(model: nn.Module, layer: Layer, tensors: dict[str, Tensor]) -> None:
    fields: dict[str, Any] = {field: tensors[f"{layer.name}.{field}"] for field in layer.tensors}
    bias = tensors[f"{layer.name}.bias"] if layer.bias else None
    fields |= layer.sizes | {"code": layer.code}
    linear = PackedLinear(Packed(**fields), bias, kernels=layer.kernels)
    if not layer.parts:
        model.get_submodule(layer.name)
        model.set_submodule(layer.name, linear)
        return
    merged = Merged(linear, [part.rows for part in layer.parts])
    for index, part in enumerate(layer.parts):
        model.get_submodule(part.name)
        model.set_submodule(part.name, packed.Part(merged, index, linear.in_features, part.rows))


def _assign(
    model: nn.Module, name: str, tensor: Tensor, parameters: dict[int, nn.Parameter]
) -> None:
    """Put a tensor where the model has a parameter or a buffer of that name and shape."""
    parent, _, last = name.rpartition(".")
    module = model.get_submodule(parent)
    place = module._parameters if last in module._parameters else module._buffers
    before = place[last]
    if before is None or before.shape != tensor.shape:
        raise KeyError(f"{name} has another shape")
    if isinstance(before, nn.Parameter):
        wanted = before.requires_grad
        made = parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=wanted))
        module._parameters[last] = made
    else:
        module._buffers[last] = tensor


def _named(model: nn.Module, layers: list[Layer]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under each of its names."""
    for layer in layers:
        linear: Any = model.get_submodule(layer.name)
        for field in layer.tensors:
            yield f"{layer.name}.{field}", getattr(linear.packed, field)
        if layer.bias:
            yield f"{layer.name}.bias", linear.bias
    inside = _inside(layers)
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        if not name.startswith(inside):
            yield name, tensor


def _inside(layers: list[Layer]) -> tuple[str, ...]:
    """What the names of tensors of packed layers begin with."""
    return tuple(f"{layer.name}." for layer in layers)


def _check_rest(model: nn.Module, empty: nn.Module, layers: list[Layer]) -> None:
    replaced = {layer.name for layer in layers}
    replaced |= {part.name for layer in layers for part in layer.parts}
    if _kinds(model, replaced) != _kinds(empty, replaced):
        kinds = _kinds(empty, replaced).items() ^ _kinds(model, replaced).items()
        raise Unkept(f"{min(kinds)[0]} is another module than the configuration makes")
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor):
                raise Unkept(f"{name}.{attribute} is a tensor outside of its parameters")


def _kinds(model: nn.Module, without: set[str]) -> dict[str, str]:
    return {
        name: type(module).__name__ for name, module in model.named_modules() if name not in without
    }


def spot_check(model: nn.Module, dtype: torch.dtype) -> None:
    """Compare one layer of each kind on the kernels with what torch makes of it; raises Torn."""
    seen = set()
    for name, module in model.named_modules():
        if not isinstance(module, PackedLinear) or not module.kernels:
            continue
        matrix = module.packed
        kind = (*matrix[3:5], matrix.group, matrix.offsets is None, matrix.order is None)
        if kind not in seen and not packed.agrees(module, dtype):
            raise Torn(f"the kernels compute {name} wrongly")
        seen.add(kind)
