"""Packed 4-bit weights: the layout, the merged layers, and on a GPU every kernel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llmkernel.worker.kernels import four_bit
from llmkernel.worker.kernels.four_bit import MatrixPlan, Packed, VectorPlan
from llmkernel.worker.models.packed import Part, pack_layers

pytestmark = [
    pytest.mark.timeout(120),
    # bitsandbytes brings torch's deprecated script methods
    pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning"),
]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def plain(nibbles, scales, code, offsets=None):
    """The matrix by its definition."""
    pairs = torch.stack((nibbles >> 4, nibbles & 15), -1).flatten(1).long()
    group = pairs.shape[1] // scales.shape[1]
    values = code[pairs] * scales.repeat_interleave(group, 1)
    return values if offsets is None else values - offsets.repeat_interleave(group, 1)


def random_matrix(
    rows: int, columns: int, device: str = DEVICE, group: int = 64, offset: bool = False
) -> tuple[Packed, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + columns)
    nibbles = torch.randint(0, 256, (rows, columns // 2), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, columns // group, generator=generator) * 0.1
    code = torch.randn(16, generator=generator).clamp(-1, 1)
    offsets = 0.1 * torch.randn(scales.shape, generator=generator) if offset else None
    given = [None if t is None else t.to(device) for t in (nibbles, scales, code, offsets)]
    return four_bit.pack(*given), plain(nibbles, scales, code, offsets).to(device)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize(("rows", "columns"), [(16, 256), (48, 768), (32, 1024)])
def test_expanding_gives_what_was_packed(rows, columns, group, offset):
    packed, expected = random_matrix(rows, columns, "cpu", group, offset)
    assert torch.equal(four_bit.expand(packed), expected)
    assert packed.group == min(group, 64)


@pytest.mark.parametrize("groups", [3, 8, 128])
def test_groups_that_are_no_whole_tiles_are_refused(groups):
    nibbles = torch.zeros(16, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="a group has 32 or n x 64"):
        four_bit.pack(nibbles, torch.ones(16, groups), torch.zeros(16))


def test_activations_are_taken_in_the_order_of_the_columns():
    packed, weight = random_matrix(32, 128, "cpu")
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 128)
    expected = x[:, order] @ weight.T
    torch.testing.assert_close(four_bit.product(x, packed._replace(order=order)), expected)


def test_sizes_that_are_no_whole_tiles_are_refused():
    with pytest.raises(ValueError, match="24 x 64 is no whole number of 16 x 64"):
        four_bit.pack(torch.zeros(24, 32, dtype=torch.uint8), torch.ones(24, 1), torch.zeros(16))


@pytest.mark.parametrize("rows", [1024, 4096, 6144, 14336, 28672, 151936])
@pytest.mark.parametrize("columns", [64, 896, 2560, 4096, 9728, 14336])
def test_every_shape_has_a_plan_within_a_gpus_limits(rows, columns):
    for processors in (20, 132):
        vector = four_bit.vector_plan(rows, processors)
        assert 32 * vector.groups * vector.split <= 1024
        for count in (1, 8, 9, 32, 64):
            matrix = four_bit.matrix_plan(rows, columns, count, processors)
            assert matrix.parts <= columns // 64
            assert four_bit.token_tiles(count) * 8 >= count


class Block(nn.Module):
    """Layers as a decoder has them: three of one input, and one of its own."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(128, 128, bias=bias)
        self.k_proj = nn.Linear(128, 64, bias=bias)
        self.v_proj = nn.Linear(128, 64, bias=bias)
        self.o_proj = nn.Linear(128, 128, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.o_proj(q * torch.cat((k, v), -1))


def quantised(bias: bool, kind: str, nested: bool) -> Block:
    """The block with bitsandbytes' layers, quantised."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    block = Block(bias)
    for name, layer in list(block.named_children()):
        new = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=torch.float32 if DEVICE == "cpu" else torch.bfloat16,
            quant_type=kind,
            compress_statistics=nested,
        )
        new.load_state_dict(layer.state_dict())
        setattr(block, name, new)
    return block.to(DEVICE).eval()


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_of_bitsandbytes_give_what_they_gave(kind, nested, bias):
    block = quantised(bias, kind, nested)
    mine = copy.deepcopy(block)
    assert pack_layers(mine) == 4
    assert isinstance(mine.k_proj, Part)
    with torch.inference_mode():
        for tokens in (1, 3, 70):
            x = torch.randn(1, tokens, 128, device=DEVICE, dtype=block.q_proj.compute_dtype)
            expected = block(x).float()
            error = (mine(x).float() - expected).norm() / expected.norm()
            assert error < (1e-2 if DEVICE == "cpu" else 3e-2)


def test_merged_layers_may_be_asked_in_any_order_and_for_any_input():
    block = quantised(True, "nf4", False)
    mine = copy.deepcopy(block)
    pack_layers(mine)
    dtype = block.q_proj.compute_dtype
    x, other = (torch.randn(2, 128, device=DEVICE, dtype=dtype) for _ in range(2))
    with torch.inference_mode():
        for name, given in [("v_proj", x), ("q_proj", x), ("k_proj", other), ("v_proj", x)]:
            expected = getattr(block, name)(given).float()
            error = (getattr(mine, name)(given).float() - expected).norm() / expected.norm()
            assert error < 2e-2


def test_layers_that_do_not_fit_stay_as_they_are():
    block = Block(bias=False)
    assert pack_layers(block) == 0
    assert type(block.q_proj) is nn.Linear


# On a GPU ------------------------------------------------------------------------------

SHAPES = [(16, 64), (4096, 4096), (6144, 4096), (1024, 14336), (896, 896), (2560, 9728)]


def near(output: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> bool:
    expected = x.double() @ weight.T.double()  # whose squares neither overflow nor vanish
    return ((output.double() - expected).norm() / expected.norm()).item() < 1e-2


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_every_number_of_tokens_is_near_the_reference(rows, columns, dtype):
    packed, weight = random_matrix(rows, columns)
    bias = torch.randn(rows, device="cuda", dtype=dtype)
    for count in (1, 2, 7, 8, 9, 16, 31, 33, 64, 65, 200):
        x = torch.randn(count, columns, device="cuda", dtype=dtype)
        assert near(four_bit.product(x, packed), x, weight), count
        biased = four_bit.product(x, packed, bias) - bias
        assert near(biased, x, weight) or rows == 16, count


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "plan", [VectorPlan(1, 16, 2), VectorPlan(3, 8, 4), VectorPlan(2, 7, 2), VectorPlan(4, 4, 4)]
)
def test_every_vector_plan_is_right(plan):
    for rows, columns in SHAPES:
        packed, weight = random_matrix(rows, columns)
        x = torch.randn(1, columns, device="cuda", dtype=torch.bfloat16)
        assert near(four_bit.vector_product(x, packed, plan=plan), x, weight)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("plan", [MatrixPlan(1, 8, 1), MatrixPlan(2, 4, 3), MatrixPlan(4, 8, 2)])
def test_every_matrix_plan_is_right(plan):
    for rows, columns in SHAPES:
        packed, weight = random_matrix(rows, columns)
        x = torch.randn(12, columns, device="cuda", dtype=torch.bfloat16)
        assert near(four_bit.matrix_product(x, packed, plan=plan), x, weight)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("size", [1e-30, 1e30, 0.0])
def test_activations_of_any_size_neither_overflow_nor_vanish(size):
    packed, weight = random_matrix(256, 512)
    x = torch.randn(1, 512, device="cuda", dtype=torch.bfloat16) * size
    output = four_bit.vector_product(x, packed)
    assert near(output, x, weight) if size else not output.any()


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("count", [1, 4])
def test_what_is_no_number_does_not_pass_as_one(bad, count):
    packed, _ = random_matrix(256, 512)
    x = torch.randn(count, 512, device="cuda", dtype=torch.bfloat16)
    x[0, 3] = bad
    output = four_bit.product(x, packed)
    assert not output[0].isfinite().all()
    assert output[1:].isfinite().all(), "the other tokens are right"
