"""Packed 4-bit weights: the layout, the merged layers, and on a GPU every kernel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from llmkernel.worker.kernels import four_bit, plans, tiles
from llmkernel.worker.kernels.plans import FewPlan, ManyPlan, RingPlan
from llmkernel.worker.kernels.tiles import Packed
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
    scales = (torch.rand(rows, columns // group, generator=generator) * 0.1).half().float()
    code = torch.randn(16, generator=generator).clamp(-1, 1)
    offsets = 0.1 * torch.randn(scales.shape, generator=generator) if offset else None
    given = [None if t is None else t.to(device) for t in (nibbles, scales, code, offsets)]
    return tiles.narrow(tiles.pack(*given)), plain(nibbles, scales, code, offsets).to(device)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@pytest.mark.parametrize(("rows", "columns"), [(16, 256), (48, 768), (32, 1024)])
def test_expanding_gives_what_was_packed(rows, columns, group, offset):
    packed, expected = random_matrix(rows, columns, "cpu", group, offset)
    assert torch.equal(tiles.expand(packed), expected)
    assert packed.group == min(group, 64)


def test_narrow_scales_keep_eleven_bits_over_nine_decades():
    scales = torch.logspace(-6, 3, 16 * 64).view(16, 64)
    given = (torch.full((16, 2048), 0x0F, dtype=torch.uint8), scales, torch.linspace(-1, 1, 16))
    exact, found = tiles.expand(tiles.pack(*given)), tiles.expand(tiles.narrow(tiles.pack(*given)))
    assert ((found - exact).abs() <= exact.abs() * 2**-11).all()


def test_offsets_stay_multiples_of_narrow_scales():
    scales = torch.linspace(0.1, 1.1, 64).view(16, 4)
    given = (torch.full((16, 128), 0xFF, dtype=torch.uint8), scales, torch.arange(16.0))
    packed = tiles.narrow(tiles.pack(*given, 15 * scales))
    assert (tiles.expand(packed).abs() <= 1e-5).all()  # float32 rounds 16.5 by a millionth
    zero = tiles.narrow(tiles.pack(*given[:1], 0 * scales, given[2], scales))
    assert torch.equal(tiles.expand(zero), -scales.repeat_interleave(64, 1))


@pytest.mark.parametrize("scale", [1024.0, torch.inf, torch.nan])
def test_scales_that_are_too_large_for_narrow_ones_are_refused(scale):
    given = (torch.zeros(16, 32, dtype=torch.uint8), torch.full((16, 1), scale), torch.zeros(16))
    with pytest.raises(ValueError, match="too large"):
        tiles.narrow(tiles.pack(*given))


@pytest.mark.parametrize("groups", [3, 8, 128])
def test_groups_that_are_no_whole_tiles_are_refused(groups):
    nibbles = torch.zeros(16, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="a group has 32 or n x 64"):
        tiles.pack(nibbles, torch.ones(16, groups), torch.zeros(16))


def test_activations_are_taken_in_the_order_of_the_columns():
    packed, weight = random_matrix(32, 128, "cpu")
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 128)
    expected = x[:, order] @ weight.T
    torch.testing.assert_close(four_bit.product(x, packed._replace(order=order)), expected)


def test_sizes_that_are_no_whole_tiles_are_refused():
    with pytest.raises(ValueError, match="24 x 64 is no whole number of 16 x 64"):
        tiles.pack(torch.zeros(24, 32, dtype=torch.uint8), torch.ones(24, 1), torch.zeros(16))


def test_a_table_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"16 values, not \(15,\)"):
        tiles.pack(torch.zeros(16, 32, dtype=torch.uint8), torch.ones(16, 1), torch.zeros(15))


@pytest.mark.parametrize("rows", [1024, 4096, 6144, 14336, 28672, 151936])
@pytest.mark.parametrize("columns", [64, 896, 2560, 4096, 9728, 14336])
def test_every_shape_has_a_plan_within_a_gpus_limits(rows, columns):
    few = plans.few_plan(columns)
    assert few.warps <= 16
    assert few.warps * few.tiles * few.parts * 64 >= columns
    assert few.tiles % few.ahead == 0
    assert (few.parts == 1) == (columns <= 4096)
    for processors, shared in ((20, 99 * 1024), (132, 227 * 1024)):
        ring = plans.ring_plan(rows, columns, 32, True, processors, shared)
        assert ring is None or ring.shared(32, True) <= shared
        assert ring is None or 4 <= ring.warps <= 16
        assert ring is None or ring.warps * ring.tiles * ring.parts * 64 >= columns
        assert ring is None or (ring.parts == 1) == (few.parts == 1), "each has norms or none has"
        for count in (1, 8, 9, 32, 64):
            matrix = plans.many_plan(rows, columns, count, processors, 99 * 1024, gated=True)
            assert matrix.parts <= columns // 64
            assert matrix.row_warps * matrix.k_warps <= 16
            assert rows // 16 % matrix.tiles == 0
            assert matrix.shared(plans.token_tiles(count)) <= 99 * 1024, "a small GPU has no more"
            assert matrix.tiles * matrix.row_warps % 2 == 0, "gate and up are one block's"
            assert plans.token_tiles(count) * 8 >= count


def test_wide_matrices_go_through_rings_where_there_is_memory_for_them():
    large, small = (132, 227 * 1024), (82, 99 * 1024)
    assert plans.ring_plan(28672, 4096, 64, False, *large) == RingPlan(16, 4, 2)
    assert plans.ring_plan(28672, 4096, 64, False, *small) is None
    assert plans.ring_plan(4096, 4096, 64, False, *large) is None, "few turns"
    assert plans.ring_plan(4096, 14336, 64, False, *large) == RingPlan(14, 4, 2, 4), "in parts"


def test_gate_and_up_in_turns_give_what_they_give_one_by_one():
    (gate, first), (up, second) = random_matrix(48, 128, "cpu"), random_matrix(48, 128, "cpu")
    up = up._replace(weights=up.weights.flip(0), code=gate.code)
    second = tiles.expand(up)
    both = tiles.gated(gate, up)
    x = torch.randn(3, 128)
    expected = nn.functional.silu(x @ first.T) * (x @ second.T)
    torch.testing.assert_close(four_bit.product(x, both, gated=True), expected)
    with pytest.raises(ValueError, match="Gate and up differ"):
        tiles.gated(gate, random_matrix(48, 128, "cpu", group=32)[0])


def test_a_matrix_is_split_between_rows():
    packed, weight = random_matrix(96, 128, "cpu", offset=True)
    first, second = tiles.split(packed, 32)
    assert torch.equal(tiles.expand(first), weight[:32])
    assert torch.equal(tiles.expand(second), weight[32:])


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


@pytest.mark.parametrize("count", range(1, 300))
def test_pieces_are_all_activations(count):
    found = plans.pieces(count)
    assert [i for some in found for i in range(count)[some]] == list(range(count))
    sizes = [some.stop - some.start for some in found]
    assert max(sizes) <= plans.MANY_TOKENS
    assert len(sizes) == -(-count // plans.MANY_TOKENS)
    assert len(sizes) == 1 or min(sizes) > plans.FEW_TOKENS


def test_what_the_second_cache_holds_is_expanded_sooner():
    assert plans.most_tokens(4096, 4096, 2 * 4096 * 4096) == 64
    assert plans.most_tokens(4096, 4096, 2 * 4096 * 4096 - 1) == 128


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_every_number_of_tokens_is_near_the_reference(rows, columns, dtype):
    packed, weight = random_matrix(rows, columns)
    bias = torch.randn(rows, device="cuda", dtype=dtype)
    for count in (1, 2, 7, 8, 9, 16, 31, 33, 64, 65, 72, 100, 128, 129, 200):
        x = torch.randn(count, columns, device="cuda", dtype=dtype)
        assert near(four_bit.product(x, packed), x, weight), count
        biased = four_bit.product(x, packed, bias) - bias
        assert near(biased, x, weight) or rows == 16, count


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "plan",
    [
        FewPlan(8, 8, 4, 2, 1),
        FewPlan(7, 8, 4, 2, 4),
        FewPlan(16, 4, 2, 1, 1),
        FewPlan(13, 4, 4, 1, 3),
        FewPlan(8, 2, 2, 2, 2),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_few_plan_is_right(plan, count):
    for rows, columns in [(4096, 4096), (1024, 14336), (896, 896), (2560, 9728)]:
        if plan.warps * plan.tiles * plan.parts * 64 < columns:
            continue
        packed, weight = random_matrix(rows, columns)
        x = torch.randn(count, columns, device="cuda", dtype=torch.bfloat16)
        for _ in range(2):  # the counters are as they were
            assert near(four_bit.few_product(x, packed, None, plan), x, weight)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "plan",
    [
        RingPlan(16, 4, 2),
        RingPlan(16, 4, 3),
        RingPlan(14, 2, 4),
        RingPlan(14, 4, 2, 4),
        RingPlan(9, 4, 2, 2),
        RingPlan(15, 4, 2, 5),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_ring_plan_is_right(plan, count):
    for rows, columns in [
        (28672, 4096),
        (4096, 14336),
        (4544, 18176),
        (4096, 4160),
        (4096, 4096),
        (1024, 896),
        (2560, 1728),
    ]:
        if plan.warps * plan.tiles * plan.parts * 64 < columns:
            continue
        packed, weight = random_matrix(rows, columns)
        x = torch.randn(count, columns, device="cuda", dtype=torch.bfloat16)
        for _ in range(2):
            assert near(four_bit.ring_product(x, packed, None, plan), x, weight)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "plan",
    [
        ManyPlan(1, 16, 3, 1, 2, 1, 1),
        ManyPlan(2, 4, 7, 2, 4, 1, 1),
        ManyPlan(2, 8, 1, 1, 4, 1, 1),
        ManyPlan(2, 4, 1, 2, 2, 2, 3),
        ManyPlan(4, 2, 1, 3, 3, 1, 2),
        ManyPlan(7, 2, 1, 2, 3, 1, 4),
    ],
)
@pytest.mark.parametrize("count", [3, 12, 32])
def test_every_many_plan_is_right(plan, count):
    for rows, columns in [*SHAPES, (28672, 4096), (6144, 4096)]:
        if rows // 16 % plan.tiles:
            continue
        packed, weight = random_matrix(rows, columns)
        x = torch.randn(count, columns, device="cuda", dtype=torch.bfloat16)
        for _ in range(2):
            assert near(four_bit.many_product(x, packed, plan=plan), x, weight)


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(("group", "offset"), [(32, False), (32, True), (64, True), (128, True)])
def test_every_format_is_near_the_reference(group, offset):
    packed, weight = random_matrix(1024, 4096, group=group, offset=offset)
    order = torch.randperm(4096, device="cuda")
    for count in (1, 5, 20, 60, 100):
        x = torch.randn(count, 4096, device="cuda", dtype=torch.bfloat16)
        assert near(four_bit.product(x, packed), x, weight), count
        ordered = four_bit.product(x, packed._replace(order=order))
        assert near(ordered, x[:, order], weight), count


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("columns", [896, 4096, 9728])
@pytest.mark.parametrize("count", [1, 6, 32, 100])
def test_what_is_fused_into_a_product_is_near_the_reference(columns, count):
    rows = 1024
    packed, _ = random_matrix(rows, columns)
    x, residual, bias, weight = (
        torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
        for shape in ((count, columns), (count, rows), (rows,), (columns,))
    )
    x *= 3
    norm = four_bit.Norm(weight, 1e-5)
    on_host = [None if t is None else t.cpu().float() for t in (x, bias, weight, residual)]
    host = Packed(packed.weights.cpu(), packed.scales.cpu(), packed.code, rows, columns)
    more = {"norm": four_bit.Norm(on_host[2], 1e-5)}
    for mine, expected in [
        (
            four_bit.product(x, packed, bias, norm=norm, residual=residual),
            four_bit.product(on_host[0], host, on_host[1], residual=on_host[3], **more),
        ),
        (
            four_bit.product(x, packed, bias, norm=norm, gated=True),
            four_bit.product(on_host[0], host, on_host[1], gated=True, **more),
        ),
    ]:
        error = (mine.cpu().float() - expected).norm() / expected.norm()
        assert error < 1e-2


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("size", [1e-30, 1e30, 0.0])
def test_activations_of_any_size_neither_overflow_nor_vanish(size):
    packed, weight = random_matrix(256, 512)
    x = torch.randn(1, 512, device="cuda", dtype=torch.bfloat16) * size
    output = four_bit.product(x, packed)
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
