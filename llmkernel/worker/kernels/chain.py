"""Several 4-bit products one after the other in one kernel, for up to 8 tokens.

Between two products all blocks wait for each other; the weights of the next one are on their way
then. So the memory is read all the time, where a kernel for each product begins anew.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmkernel.worker.kernels import four_bit, launch, plans
from llmkernel.worker.kernels.four_bit import Norm, Packed
from llmkernel.worker.kernels.plans import COLUMNS

_WARPS, _TILES = 16, 4
"""Of four_bit_chain.cu: warps of a block, k-tiles of a warp."""
_MOST_TILES = _WARPS * _TILES
"""k-tiles of a part."""
_LEAST_STAGES, _MOST_STAGES = 2, 4
_MOST_UNITS = 4096


GIVEN = -1
"""The residual that a chain is called with."""


class Link(NamedTuple):
    """One product of a chain; its input is the output of the one before.

    `residual` is the number of the link whose output is added, or `GIVEN`.
    """

    packed: Packed
    bias: Tensor | None = None
    norm: Norm | None = None
    residual: int | None = None
    gated: bool = False


class Chain:
    """Products one after the other; on a GPU one kernel where `as_one` says so and tokens are few."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self.as_one = _fits(self.links)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> list[Tensor]:
        """The outputs of all links; the input of the first one is `x` [tokens, columns]."""
        if self.as_one and x.shape[0] <= four_bit.FEW_TOKENS:
            return chain_on_gpu(x, self.links, residual)
        return one_by_one(x, self.links, residual)


def one_by_one(x: Tensor, links: Sequence[Link], residual: Tensor | None) -> list[Tensor]:
    """What a chain computes, by a product for each link."""
    outputs: list[Tensor] = []
    for link in links:
        added = residual if link.residual == GIVEN else None
        if link.residual is not None and link.residual != GIVEN:
            added = outputs[link.residual]
        x = four_bit.product(
            x, link.packed, link.bias, norm=link.norm, residual=added, gated=link.gated
        )
        outputs.append(x)
    return outputs


def _fits(links: Sequence[Link]) -> bool:
    """Whether one kernel can compute them: matrices of one kind, on a GPU with the memory."""
    first = links[0].packed
    device = first.weights.device
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    if plans.shared_memory(device) < _shared(first, _LEAST_STAGES):
        return False
    return all(
        link.packed.order is None
        and link.packed.group == first.group
        and (link.packed.offsets is None) == (first.offsets is None)
        and torch.equal(link.packed.code, first.code)
        and not (link.gated and _parts(link.packed) > 1)
        for link in links
    )


def _parts(packed: Packed) -> int:
    return math.ceil(packed.columns // COLUMNS / _MOST_TILES)


def _shared(packed: Packed, stages: int) -> int:
    """Bytes of shared memory of a block, whose warps have `stages` row tiles on their way."""
    scales = (1 + (packed.offsets is not None)) * COLUMNS // packed.group * 64
    return plans.TABLE_END + stages * _WARPS * _TILES * (512 + scales)


_POINTERS = ("weights", "scales", "offsets", "code", "x", "norm", "bias", "residual", "y")


class _Product(ctypes.Structure):
    """`Product` of four_bit_chain.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("rows", "columns", "parts", "per_part", "per_warp", "stride", "gated")),
    )


def chain_on_gpu(x: Tensor, links: Sequence[Link], residual: Tensor | None = None) -> list[Tensor]:
    """`Chain` by its kernel, for up to 8 tokens.

    All blocks are on the GPU at the same time and wait for each other: nothing that waits for this
    kernel in turn may keep them from it.
    """
    count, device = x.shape[0], x.device
    outputs = [x.new_empty(count, link.packed.rows // (1 + link.gated)) for link in links]
    given = [*outputs, residual]  # GIVEN is the last
    chain = _chain(len(links))()
    for number, (link, product) in enumerate(zip(links, chain.products, strict=True)):
        added = None if link.residual is None else given[link.residual]
        _describe(product, link, outputs[number - 1] if number else x, added, outputs[number])
    split = [
        _parts(link.packed) * count * link.packed.rows for link in links if _parts(link.packed) > 1
    ]
    sums = x.new_empty(max(split), dtype=torch.float32) if split else None
    counters = _counters(device)
    kernel, shared = _kernel(x.dtype, len(links), links[0].packed)
    arguments = [chain, sums, counters[1:], counters, count]
    kernel((plans.processors(device), 1), 32 * _WARPS, arguments, shared)
    return outputs


def _describe(product: _Product, link: Link, x: Tensor, residual: Tensor | None, y: Tensor) -> None:
    packed, parts = link.packed, _parts(link.packed)
    weight, eps = link.norm or (None, 0.0)
    tensors = (
        packed.weights, packed.scales, packed.offsets, packed.code, x, weight, link.bias, residual, y,
    )  # fmt: skip
    for name, tensor in zip(_POINTERS, tensors, strict=True):
        setattr(product, name, None if tensor is None else tensor.data_ptr())
    product.eps, product.gated = eps, link.gated
    product.rows, product.columns, product.parts = packed.rows, packed.columns, parts
    product.per_part = math.ceil(packed.columns // COLUMNS / parts)
    product.per_warp = math.ceil(product.per_part / _WARPS)
    product.stride = plans.processors(x.device) // parts


@functools.cache
def _chain(products: int) -> type[ctypes.Structure]:
    class Chain(ctypes.Structure):
        _fields_ = (("products", _Product * products),)

    return Chain


def _kernel(dtype: torch.dtype, products: int, packed: Packed) -> tuple[launch.Kernel, int]:
    """The kernel for matrices like `packed`, and the bytes of shared memory that it is launched with."""
    stages = _MOST_STAGES
    while _shared(packed, stages) > plans.shared_memory(packed.weights.device):
        stages -= 1
    sizes = {"products": products, "stages": stages, "groups": COLUMNS // packed.group}
    if packed.offsets is not None:
        sizes["offsets"] = 1
    shared = _shared(packed, stages)
    return launch.kernel("four_bit_chain", dtype, shared, **sizes), shared


@functools.cache
def _counters(device: torch.device) -> Tensor:
    """The blocks that wait, then those that have done their part of each row tile."""
    return torch.zeros(1 + _MOST_UNITS, dtype=torch.int32, device=device)
