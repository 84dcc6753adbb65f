"""The CUDA sources, run by the processor: what they compute, and that no thread runs ahead of another."""

from __future__ import annotations

import pytest
import torch

from llmkernel.worker.kernels import four_bit, launch, layer, tiles
from llmkernel.worker.kernels.paged_attention import Pool
from llmkernel.worker.kernels.plans import FewPlan, ManyPlan, RingPlan
from tests.model import on_host

pytestmark = pytest.mark.timeout(120)
BF16, F16 = torch.bfloat16, torch.float16
PROCESSORS = 3


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Products are launched on the processor, as if it had few multiprocessors."""
    on_host.need_a_compiler()
    caches = (
        four_bit._few_kernel,
        four_bit._ring_kernel,
        four_bit._many_kernel,
        four_bit._counters,
    )
    monkeypatch.setattr(launch, "kernel", on_host.kernel)
    monkeypatch.setattr(four_bit, "processors", lambda device: PROCESSORS)
    monkeypatch.setattr(four_bit, "shared_memory", lambda device: 227 * 1024)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(params=range(3))
def order(request, monkeypatch):
    """Threads run in one order after the other."""
    monkeypatch.setattr(on_host.Kernel, "seed", request.param)


def random(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def matrix(rows: int, columns: int, group: int = 64, offsets: bool = False) -> tiles.Packed:
    generator = torch.Generator().manual_seed(rows)
    nibbles = torch.randint(0, 256, (rows, columns // 2), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, columns // group, generator=generator) * 0.1
    code = torch.randn(16, generator=generator).clamp(-1, 1)
    shifts = 0.1 * torch.randn(scales.shape, generator=generator) if offsets else None
    return tiles.narrow(tiles.pack(nibbles, scales, code, shifts))


def error(mine: torch.Tensor, expected: torch.Tensor) -> float:
    return float((mine.float() - expected).norm() / expected.norm())


FEW = [
    (64, 1024, FewPlan(4, 4, 4, 1, 1), 64, False, BF16),
    (64, 1024, FewPlan(4, 4, 2, 1, 1), 32, True, BF16),
    (80, 896, FewPlan(4, 4, 4, 1, 1), 64, False, F16),
    (48, 832, FewPlan(4, 2, 2, 2, 2), 64, True, BF16),
]
RING = [
    (144, 1024, RingPlan(4, 4, 2), 64, False, BF16),
    (224, 896, RingPlan(4, 4, 2), 64, True, F16),
    (144, 1024, RingPlan(4, 2, 2, 2), 64, False, BF16),
    (80, 1984, RingPlan(4, 2, 3, 4), 32, True, F16),
    (48, 4160, RingPlan(9, 4, 2, 2), 64, False, BF16),
    (80, 832, RingPlan(8, 2, 3), 32, True, BF16),
    (16, 512, RingPlan(4, 2, 4), 32, False, F16),
]
MANY = [
    (64, 512, ManyPlan(2, 2, 1, 1, 4, 1, 1), 20, 64, False, BF16),
    (96, 576, ManyPlan(2, 2, 2, 2, 3, 1, 1), 40, 64, False, BF16),
    (80, 6144, ManyPlan(2, 2, 1, 2, 2, 1, 3), 12, 32, True, F16),
    (32, 3072, ManyPlan(1, 2, 2, 2, 4, 1, 2), 64, 64, True, BF16),
    (96, 1088, ManyPlan(1, 8, 3, 1, 2, 1, 1), 20, 64, False, BF16),
    (224, 512, ManyPlan(1, 4, 7, 2, 3, 1, 1), 12, 64, False, BF16),
]


@pytest.mark.parametrize(("rows", "columns", "plan", "group", "offsets", "dtype"), FEW + RING)
def test_products_of_few_tokens_are_near_the_reference(
    rows, columns, plan, group, offsets, dtype, order
):
    packed, bias = matrix(rows, columns, group, offsets), random(rows, dtype=dtype)
    product = four_bit.few_product if isinstance(plan, FewPlan) else four_bit.ring_product
    for count in (1, 5, 8):
        x, residual = random(count, columns, dtype=dtype), random(count, rows, dtype=dtype)
        expected = four_bit.product(x.float(), packed, bias.float(), residual=residual.float())
        mine = product(x, packed, bias, plan, residual=residual)
        assert error(mine, expected) < 1e-2, count


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("ring", [False, True])
def test_a_norm_and_a_gate_are_part_of_a_product_of_few_tokens(count, ring, order):
    packed, bias = matrix(288, 1024), random(288)
    x, norm = 3 * random(count, 1024), four_bit.Norm(random(1024), 1e-5)
    wide = norm._replace(weight=norm.weight.float())
    expected = four_bit.product(x.float(), packed, bias.float(), norm=wide, gated=True)
    more = {"norm": norm, "gated": True}
    if ring:
        mine = four_bit.ring_product(x, packed, bias, RingPlan(4, 4, 2), **more)
    else:
        mine = four_bit.few_product(x, packed, bias, FewPlan(4, 4, 4, 1, 1), **more)
    assert error(mine, expected) < 1e-2


@pytest.mark.parametrize(("rows", "columns", "plan", "count", "group", "offsets", "dtype"), MANY)
def test_products_of_many_tokens_are_near_the_reference(
    rows, columns, plan, count, group, offsets, dtype, order
):
    packed, bias = matrix(rows, columns, group, offsets), random(rows, dtype=dtype)
    x, residual = random(count, columns, dtype=dtype), random(count, rows, dtype=dtype)
    expected = four_bit.product(x.float(), packed, bias.float(), residual=residual.float())
    mine = four_bit.many_product(x, packed, bias, plan, residual=residual)
    assert error(mine, expected) < 1e-2


def test_a_gate_is_part_of_a_product_of_many_tokens(order):
    packed, bias, x = matrix(128, 512), random(128), random(30, 512)
    expected = four_bit.product(x.float(), packed, bias.float(), gated=True)
    plan = ManyPlan(2, 2, 2, 2, 3, 1, 1)
    mine = four_bit.many_product(x, packed, bias, plan, gated=True)
    assert error(mine, expected) < 1e-2


def test_more_tokens_than_a_launch_has_are_several(order):
    packed, bias, x = matrix(64, 512), random(64), random(75, 512)
    residual = random(75, 64)
    expected = four_bit.product(x.float(), packed, bias.float(), residual=residual.float())
    mine = four_bit.many_product(x, packed, bias, residual=residual)
    assert error(mine, expected) < 1e-2
    expected = four_bit.product(x.float(), packed, gated=True)
    assert error(four_bit.many_product(x, packed, gated=True), expected) < 1e-2


def test_what_is_no_number_reaches_its_own_token_alone():
    packed, x = matrix(64, 512), random(12, 512)
    x[3, 70] = torch.nan
    mine = four_bit.many_product(x, packed, plan=ManyPlan(2, 2, 1, 1, 4, 1, 1))
    assert mine[3].isnan().all()
    assert mine[:3].isfinite().all()
    assert mine[4:].isfinite().all()


@pytest.mark.parametrize(("group", "offsets"), [(64, False), (32, True)])
def test_expanded_weights_are_those_of_the_reference(group, offsets):
    packed = matrix(48, 192, group, offsets)
    torch.testing.assert_close(four_bit.expand_on_gpu(packed, BF16), tiles.expand(packed, BF16))


@pytest.mark.parametrize("width", [64, 896, 4096])
def test_norms_are_near_the_reference(width):
    x, weight = random(3, width), random(width)
    expected = layer.rms_norm(x.float(), weight.float(), 1e-5)
    torch.testing.assert_close(
        layer.rms_norm_on_gpu(x, weight, 1e-5).float(), expected, rtol=1e-2, atol=1e-2
    )


def test_cosines_and_sines_are_near_the_reference():
    positions, frequencies = torch.tensor([0, 1, 50, 4000]), torch.tensor([1.0, 0.1, 1e-3])
    expected = layer.rotary(positions, frequencies, 1.5, torch.float32)
    mine = layer.rotary_on_gpu(positions, frequencies, 1.5, BF16)
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("norms", [False, True])
def test_rotation_is_near_the_reference(head_dim, norms):
    merged, angles = random(5, 10 * head_dim), random(5, head_dim // 2, dtype=torch.float32)
    rotary = angles.repeat(1, 2).cos().to(BF16), angles.repeat(1, 2).sin().to(BF16)
    pool = Pool(random(4, 16, 2, head_dim), random(4, 16, 2, head_dim))
    expected = Pool(pool.keys.float(), pool.values.float())
    slots = torch.tensor([3, 17, 40, 16, 63])
    weights = (random(head_dim), random(head_dim), 1e-6) if norms else None
    query = layer.rope_write(merged.float(), rotary, expected, slots, weights)
    close = {"rtol": 1e-2, "atol": 2e-2}
    mine = layer.rope_write_on_gpu(merged, rotary, pool, slots, weights)
    torch.testing.assert_close(mine.float(), query, **close)
    torch.testing.assert_close(pool.keys.float(), expected.keys, **close)
    torch.testing.assert_close(pool.values.float(), expected.values, **close)


WRITES = """
extern "C" __global__ void writes(u32* out, int at) {
  const u32 where = at ? at : shared_address(dynamic_shared());
  store_shared(where, make_uint4(1, 2, 3, 4));
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = load_shared_word(where);
}
"""


@pytest.mark.parametrize(("at", "strays"), [(0, False), (4096, True), (1 << 23, True)])
def test_a_block_of_a_cluster_writes_to_addresses_of_its_own(at, strays, monkeypatch):
    real = launch.source
    own = real("device.cuh") + WRITES
    monkeypatch.setattr(launch, "source", lambda file: own if file == "writes.cu" else real(file))
    out = torch.zeros(2, dtype=torch.int32)
    kernel = on_host.kernel("writes", BF16, cluster=2)
    if strays:
        with pytest.raises(RuntimeError, match="another block's memory, or of none"):
            kernel((2, 1), 32, [out, at])
    else:
        kernel((2, 1), 32, [out, at])
        assert out.tolist() == [1, 1]
