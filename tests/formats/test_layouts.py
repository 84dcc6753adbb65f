"""GPTQ's and AWQ's bits: what is read is what was written, by another hand."""

from __future__ import annotations

from typing import Any

import packers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmkernel.errors import BrokenCheckpoint
from llmkernel.worker.formats import Format, choose
from llmkernel.worker.formats.matrix import pack, packed_bytes
from llmkernel.worker.kernels import tiles
from llmkernel.worker.models.packed import PackedLinear

pytestmark = pytest.mark.timeout(120)


def form(stored: dict[str, Any], **changes: Any) -> Format:
    found = choose(stored | changes)
    assert found is not None
    return found


def packed_of(found: Format, tensors: dict[str, Tensor]) -> tiles.Packed:
    return pack(found.matrix(tensors))


def in_place(packed: tiles.Packed) -> Tensor:
    """The matrix with its columns where the activations have them."""
    weight = tiles.expand(packed)
    if packed.order is None:
        return weight
    result = torch.empty_like(weight)
    result[:, packed.order] = weight
    return result


def random_layer(draw: Any, *, least_zero: int = 0) -> tuple[packers.Quantised, int]:
    """Any numbers at all: values and zero points, scales of both signs and sizes."""
    rows, columns = 16 * draw(st.integers(1, 3)), 64 * draw(st.integers(1, 5))
    size = draw(st.sampled_from([32, 64, 96, 128, 256, -1]))
    length = columns if size == -1 else size
    count = -(-columns // length)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16]))
    scales = (torch.randn(count, rows, generator=generator) * 10 ** draw(st.integers(-3, 2))).to(
        dtype
    )
    values = torch.randint(0, 16, (rows, columns), generator=generator)
    zeros = torch.randint(least_zero, 16, (count, rows), generator=generator)
    if draw(st.booleans()):
        zeros = torch.full_like(zeros, 8)
    groups = torch.arange(columns) // length
    if draw(st.booleans()):
        groups = groups[torch.randperm(columns, generator=generator)]
    return packers.Quantised(values, zeros, scales, groups), size


@st.composite
def gptq_layers(draw: Any) -> tuple[packers.Quantised, dict[str, Any], bool]:
    version, borrow = draw(st.sampled_from([(1, False), (1, True), (2, False)]))
    least = 1 if version == 1 and not borrow else 0
    layer, size = random_layer(draw, least_zero=least)
    stored = packers.GPTQ | {
        "group_size": size,
        "sym": bool((layer.zeros == 8).all()),
        "desc_act": not torch.equal(layer.groups, layer.groups.sort().values),
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
        "meta": {"quantizer": ["gptqmodel:2.0.0"]} if borrow else {},
    }
    return layer, stored, borrow


@st.composite
def awq_layers(draw: Any) -> tuple[packers.Quantised, dict[str, Any]]:
    layer, size = random_layer(draw)
    columns = layer.values.shape[1]
    ordered = torch.arange(columns) // (columns if size == -1 else size)
    layer = layer._replace(groups=ordered)
    return layer, packers.AWQ | {"group_size": size}


@settings(max_examples=60)
@given(gptq_layers())
def test_any_gptq_layer_is_read_as_it_was_written(
    case: tuple[packers.Quantised, dict[str, Any], bool],
) -> None:
    layer, stored, borrow = case
    version = 1 if stored["checkpoint_format"] == "gptq" else 2
    tensors = packers.gptq(layer, version=version, borrow=borrow)
    packed = packed_of(form(stored), tensors)
    assert torch.equal(in_place(packed), layer.weight)
    assert (packed.offsets is None) == stored["sym"]
    assert (packed.order is None) == (not stored["desc_act"])


@settings(max_examples=60)
@given(awq_layers())
def test_any_awq_layer_is_read_as_it_was_written(
    case: tuple[packers.Quantised, dict[str, Any]],
) -> None:
    layer, stored = case
    packed = packed_of(form(stored), packers.awq(layer))
    assert torch.equal(tiles.expand(packed), layer.weight)
    assert (packed.offsets is None) == bool((layer.zeros == 8).all())


def test_the_words_are_those_that_the_formats_publish() -> None:
    """Made by hand: eight weights 0 to 7, the first in the lowest bits; AWQ's evens come first."""
    counted = torch.arange(8).repeat(8)
    layer = packers.quantise(torch.randn(16, 64), 64)
    layer = layer._replace(values=counted.repeat(16, 1))
    assert packers.gptq(layer)["qweight"][0, 0] == 0x76543210
    assert packers.gptq(layer)["qzeros"][0, 0] == 0x77777777
    assert packers.gptq(layer, version=2)["qzeros"][0, 0] == words(0x88888888)
    layer = layer._replace(values=torch.arange(16)[:, None].remainder(8).repeat(1, 64))
    assert packers.awq(layer)["qweight"][0, 0] == 0x75316420


def words(number: int) -> int:
    """As int32."""
    return number - 2**32 if number >= 2**31 else number


def test_without_g_idx_groups_follow_one_another() -> None:
    layer = packers.quantise(torch.randn(16, 128), 32)
    tensors = packers.gptq(layer)
    del tensors["g_idx"]
    assert torch.equal(tiles.expand(packed_of(form(packers.GPTQ), tensors)), layer.weight)


def test_columns_in_another_order_are_read_even_where_the_configuration_does_not_say_so() -> None:
    layer = packers.quantise(torch.randn(16, 128), 32, shuffled=True)
    packed = packed_of(form(packers.GPTQ), packers.gptq(layer))
    assert torch.equal(in_place(packed), layer.weight)


@pytest.mark.parametrize("group", [7, 4, -1])
def test_an_index_out_of_range_is_an_error(group: int) -> None:
    tensors = packers.gptq(packers.quantise(torch.randn(16, 128), 32))
    tensors["g_idx"][5] = group
    with pytest.raises(BrokenCheckpoint, match=f"g_idx names group {group}, and there are 4"):
        form(packers.GPTQ).matrix(tensors)


def test_groups_of_other_sizes_are_an_error() -> None:
    tensors = packers.gptq(packers.quantise(torch.randn(16, 128), 32))
    tensors["g_idx"][0] = 1
    with pytest.raises(BrokenCheckpoint, match="does not place 32 columns into each group"):
        form(packers.GPTQ).matrix(tensors)


def test_zero_points_that_contradict_symmetry_are_an_error() -> None:
    tensors = packers.gptq(packers.quantise(torch.randn(16, 128), 32), version=2)
    with pytest.raises(BrokenCheckpoint, match=r"symmetrically.*other than 8"):
        form(packers.GPTQ).matrix(tensors)


def test_a_zero_point_that_writers_store_differently_is_an_error() -> None:
    layer = packers.quantise(torch.randn(16, 128), 32, symmetric=False)
    layer.zeros[1, 3] = 0
    tensors = packers.gptq(layer, borrow=True)
    with pytest.raises(BrokenCheckpoint, match=r"zero point of 0 .*gptq_v2"):
        form(packers.GPTQ, sym=False).matrix(tensors)
    known = form(packers.GPTQ, sym=False, meta={"quantizer": "gptqmodel:4.0.0"})
    assert torch.equal(tiles.expand(packed_of(known, tensors)), layer.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_a_layer_multiplies_as_its_weights_do(kind: str, dtype: torch.dtype) -> None:
    shuffled = kind == "gptq"
    layer = packers.quantise(torch.randn(48, 192), 32, symmetric=False, shuffled=shuffled)
    stored = packers.GPTQ | {"sym": False, "desc_act": True} if shuffled else packers.AWQ
    tensors = packers.gptq(layer) if shuffled else packers.awq(layer)
    bias = torch.randn(48, dtype=dtype)
    linear = PackedLinear(packed_of(form(stored), tensors), bias, kernels=False)
    x = torch.randn(2, 5, 192).to(dtype)
    expected = torch.nn.functional.linear(x.float(), layer.weight, bias.float())
    output = linear(x)
    assert output.shape == (2, 5, 48)
    assert output.dtype == dtype
    error = (output.float() - expected).norm() / expected.norm()
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([32, 64, 128]), st.booleans())
def test_the_bytes_are_foretold(down: int, across: int, length: int, symmetric: bool) -> None:
    rows, columns = 16 * down, 128 * across
    layer = packers.quantise(
        torch.randn(rows, columns), length, symmetric=symmetric, shuffled=across > 1
    )
    found = form(packers.GPTQ, group_size=length, sym=symmetric, desc_act=across > 1)
    packed = packed_of(found, packers.gptq(layer))
    tensors = [packed.weights, packed.scales, packed.offsets, packed.order]
    taken = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    foretold = packed_bytes(rows, columns, length, offsets=not symmetric, order=across > 1)
    assert foretold - 8 * columns <= taken <= foretold
