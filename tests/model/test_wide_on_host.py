from __future__ import annotations

import pytest

from llmkernel.worker.kernels import four_bit, launch, wide
from tests.model import on_host
from tests.model.test_cuda_on_host import BF16, F16, error, matrix, random

pytestmark = pytest.mark.timeout(120)


def product(x, packed, bias, residual, plan, gated=False, arranged=False):
    for _ in range(2):  # the counters are as they were
        y = wide.wide_product(
            wide.arrange(x),
            x.shape[0],
            packed,
            bias,
            plan,
            residual=residual,
            gated=gated,
            arranged=arranged,
        )
    return y


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    on_host.need_a_compiler()
    four_bit._counters.cache_clear()
    monkeypatch.setattr(launch, "kernel", on_host.kernel)


CASES = [
    (224, 512, 64, False, BF16, 30, wide.WidePlan(14, 4, 1, 2, 3, 3, 1)),
    (96, 704, 64, False, BF16, 20, wide.WidePlan(3, 1, 4, 2, 2, 2, 1)),
    (80, 1024, 32, True, F16, 12, wide.WidePlan(2, 1, 2, 2, 3, 2, 3)),
    (96, 2048, 64, True, BF16, 64, wide.WidePlan(4, 1, 4, 1, 4, 2, 2)),
    (64, 960, 64, False, BF16, 48, wide.WidePlan(4, 1, 2, 2, 2, 3, 1)),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns", "group", "offsets", "dtype", "count", "plan"), CASES)
def test_wide(rows, columns, group, offsets, dtype, count, plan, seed, monkeypatch):
    monkeypatch.setattr(on_host.Kernel, "seed", seed)
    packed, bias = matrix(rows, columns, group, offsets), random(rows, dtype=dtype)
    x, residual = random(count, columns, dtype=dtype), random(count, rows, dtype=dtype)
    expected = four_bit.product(x.float(), packed, bias.float(), residual=residual.float())
    assert error(product(x, packed, bias, residual, plan), expected) < 1e-2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arranged", [False, True])
def test_wide_gated(arranged, seed, monkeypatch):
    monkeypatch.setattr(on_host.Kernel, "seed", seed)
    packed, bias, x = matrix(256, 512), random(256), random(30, 512)
    expected = four_bit.product(x.float(), packed, bias.float(), gated=True)
    mine = product(x, packed, bias, None, wide.WidePlan(14, 4, 1, 2, 4, 3, 1), True, arranged)
    if arranged:  # tokens beyond the last one are anything
        expected, mine = wide.arrange(expected)[..., :30, :], mine[..., :30, :]
    assert error(mine, expected) < 1e-2
