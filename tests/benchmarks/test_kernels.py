"""The table of kernels, on a layer that is small enough for Triton's interpreter."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks import kernels
from benchmarks.kernels import Bench, LayerShape, Row

pytestmark = pytest.mark.timeout(120)
SMALL = LayerShape(64, 128, heads=4, kv_heads=2, head_dim=16, layers=3)


def clock(call):
    began = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - began)


@pytest.fixture
def bench():
    return Bench(SMALL, torch.device("cpu"), torch.float32, clock, past=1)


def test_every_kernel_is_timed_beside_its_other(bench, monkeypatch):
    pytest.importorskip("triton", reason="pip install 'llmkernel[dev]' brings Triton")
    monkeypatch.setattr(kernels, "CONTEXTS", ((2, 40),))
    monkeypatch.setattr(kernels, "CHUNKS", ((20, 0), (20, 16)))
    rows = list(kernels.measure(bench, [1, 2]))
    assert bench.failures == []
    assert [row.kernel for row in rows if row.other_us is None] == [
        "rotation and write",
        "rotation and write",
        "prefill attention",
    ]
    assert all(row.us > 0 and row.moved > 0 for row in rows)
    named = {row.kernel for row in rows}
    assert named == {
        *SMALL.matrices, "norm", "rotation and write", "decode attention", "prefill attention",
    }  # fmt: skip


def test_the_attention_that_is_compared_is_the_same(bench):
    pytest.importorskip("triton", reason="pip install 'llmkernel[dev]' brings Triton")
    results = []
    bench.clock = lambda call: results.append(call()) or 1.0
    list(kernels.prefill_attention(bench, 12, 0))  # one page: more lie in an order of their own
    ours, theirs = (found[0] for found in results)
    torch.testing.assert_close(ours, theirs[0].transpose(0, 1))


def test_what_does_not_run_here_is_told(bench):
    def broken(_):
        raise RuntimeError("no kernel image\nmore")

    assert bench.other("theirs", broken, [1]) is None
    assert bench.failures == ["theirs: no kernel image"]


def test_the_sum_over_layers_is_of_one_size():
    rows = [
        Row(name, size, us, 1, 100.0)
        for size, us in (("1 token", 10.0), ("2 tokens", 20.0))
        for name in SMALL.matrices
    ]
    assert kernels.layers_ms(rows, SMALL, 1) == pytest.approx((0.12, 1.2))
    assert kernels.layers_ms([*rows[:4], rows[4]._replace(other_us=None)], SMALL, 2)[1] is None


def test_the_table_has_bandwidth_and_ratio():
    lines = kernels.table([Row("o", "1 token", 10.0, 10_000_000, 25.0, "bitsandbytes")], 2e12)
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["o", "1 token", "10", "1,000", "50%", "25", "2.5", "bitsandbytes"]
