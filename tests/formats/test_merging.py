"""Packed layers on the kernels: those of one input become one product, and say what they said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import packers
import pytest
import torch
from torch import nn

from llmkernel.worker.formats import choose
from llmkernel.worker.formats.matrix import pack
from llmkernel.worker.models.packed import PackedLinear, Part, use_kernels
from tests.formats.test_models import answer, same
from tests.loader import small_checkpoints
from tests.loader.small_checkpoints import load_quietly

pytestmark = pytest.mark.timeout(120)


def linear(layer: packers.Quantised, bias: bool = False, **changes: Any) -> PackedLinear:
    """A layer as it is loaded."""
    found = choose(packers.GPTQ | {"sym": False, "desc_act": True} | changes)
    assert found is not None
    packed = pack(found.matrix(packers.gptq(layer)))
    rows = layer.values.shape[0]
    return PackedLinear(packed, torch.randn(rows) if bias else None, kernels=False)


def block(queries: PackedLinear, keys: PackedLinear, values: PackedLinear) -> nn.Module:
    parent = nn.Module()
    parent.q_proj, parent.k_proj, parent.v_proj = queries, keys, values
    return parent


def layers(*, symmetric: tuple[bool, ...] = (False,) * 3) -> list[packers.Quantised]:
    """Three whose columns are in the same order, as GPTQ makes them from one input."""
    made = []
    for rows, flag in zip((64, 32, 32), symmetric, strict=True):
        weight = torch.randn(rows, 128)
        torch.manual_seed(0)
        made.append(packers.quantise(weight, 32, symmetric=flag, shuffled=True))
    return made


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("symmetric", [(False, False, False), (True, False, True), (True,) * 3])
def test_layers_of_one_input_become_one_product(bias: bool, symmetric: tuple[bool, ...]) -> None:
    parent = block(*(linear(layer, bias) for layer in layers(symmetric=symmetric)))
    x = torch.randn(3, 128)
    expected = [parent.q_proj(x), parent.k_proj(x), parent.v_proj(x)]
    assert use_kernels(parent, torch.float32) == 3
    assert isinstance(parent.v_proj, Part)
    for module, wanted in zip((parent.q_proj, parent.k_proj, parent.v_proj), expected, strict=True):
        assert torch.allclose(module(x), wanted, atol=1e-5)
    merged = parent.q_proj.linear.packed
    assert (merged.offsets is None) == all(symmetric)
    assert merged.order is not None


def test_layers_of_other_orders_stay_apart() -> None:
    made = layers()
    torch.manual_seed(1)
    shuffled = packers.quantise(torch.randn(32, 128), 32, symmetric=False, shuffled=True)
    for one, two, three in (
        (linear(made[0]), linear(shuffled), linear(made[2])),
        (linear(made[0], bias=True), linear(made[1]), linear(made[2])),
    ):
        parent = block(one, two, three)
        x = torch.randn(2, 128)
        expected = parent.k_proj(x)
        assert use_kernels(parent, torch.float32) == 3
        assert isinstance(parent.k_proj, PackedLinear)
        assert torch.equal(parent.k_proj(x), expected)


@pytest.mark.parametrize("stored", [packers.GPTQ, packers.AWQ], ids=["gptq", "awq"])
def test_a_model_answers_the_same_merged(tmp_path: Path, stored: dict[str, Any]) -> None:
    packers.save(tmp_path, small_checkpoints.config(), stored)
    plain, mine = (load_quietly(tmp_path / "quantised")[0].model for _ in range(2))
    assert use_kernels(mine, torch.float32) == 14
    assert isinstance(mine.model.layers[0].mlp.up_proj, Part)
    assert same(answer(mine), answer(plain))
