"""A decode step's attention in one kernel is what its parts give one after the other."""

from __future__ import annotations

import pytest
import torch

from llmkernel.worker.kernels import layer
from llmkernel.worker.kernels.paged_attention import (
    DecodeRows,
    Options,
    PagedStep,
    Pool,
    PrefillRow,
    decode_attention,
)
from llmkernel.worker.kernels.rotary_attention import rotary_attention, serves

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
BLOCK = 16


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(lengths, group, kv_heads, head_dim, norms=False):
    """A step of rows of these lengths in float32 on the CPU, its pool full of other numbers."""
    rows, width = len(lengths), -(-max(lengths) // BLOCK)
    merged = 2 * random(rows, (group + 2) * kv_heads * head_dim)
    angles = random(rows, head_dim // 2, seed=1).repeat(1, 2)
    blocks = rows * width + 2
    shape = (blocks, BLOCK, kv_heads, head_dim)
    pool = Pool(random(*shape, seed=2), random(*shape, seed=3))
    shuffled = torch.randperm(blocks - 2, generator=torch.Generator().manual_seed(4)) + 1
    tables = torch.zeros(rows + 2, width, dtype=torch.int64)
    slots = torch.arange(rows).flip(0) + 1
    tables[slots] = shuffled.view(rows, width)
    lens = torch.tensor(lengths)
    last = lens - 1
    mapping = tables[slots, last // BLOCK] * BLOCK + last % BLOCK
    step = PagedStep(mapping, DecodeRows(tables, slots, lens, width), [])
    weights = (1 + random(head_dim, seed=5), 1 + random(head_dim, seed=6), 1e-6) if norms else None
    return merged, (angles.cos(), angles.sin()), pool, step, weights


def moved(given, device, dtype):
    """The same on a device; only numbers that are computed with take the dtype."""
    if isinstance(given, torch.Tensor):
        return given.to(device, dtype if given.is_floating_point() else given.dtype)
    if isinstance(given, PagedStep):
        rows = given.decode
        parts = (
            moved(part, device, dtype) for part in (rows.tables, rows.slots, rows.context_lens)
        )
        mapping = moved(given.slot_mapping, device, dtype)
        return PagedStep(mapping, DecodeRows(*parts, rows.width), [])
    if isinstance(given, tuple):
        kept = [moved(part, device, dtype) for part in given]
        return type(given)(*kept) if hasattr(given, "_fields") else tuple(kept)
    return given


def expected(merged, rotary, pool, step, options, norms):
    query = layer.rope_write(merged, rotary, pool, step.slot_mapping, norms)
    return decode_attention(query, pool, step.decode, options)


def test_it_serves_decode_steps_on_a_gpu_only():
    merged, _, pool, step, _ = case([5], 2, 2, 64)
    assert not serves(merged, pool, step)
    if torch.cuda.is_available():
        on_gpu = moved((merged, pool, step), "cuda", torch.bfloat16)
        assert serves(*on_gpu)
        table = torch.zeros(1, dtype=torch.int64, device="cuda")
        prefill = PagedStep(on_gpu[2].slot_mapping, None, [PrefillRow(0, 1, 0, table)])
        assert not serves(on_gpu[0], on_gpu[1], prefill)
        assert not serves(on_gpu[0].float(), on_gpu[1], on_gpu[2])


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        Options(0.1),
        Options(0.2, window=20),
        Options(0.1, softcap=5.0),
        Options(0.1, sinks=random(8)),
    ],
    ids=["plain", "window", "softcap", "sinks"],
)
@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize(("group", "kv_heads"), [(1, 8), (4, 2), (8, 1)])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_it_is_near_the_reference(head_dim, group, kv_heads, parts, options):
    for lengths, norms in (([1], False), ([1, 2, 15, 16, 17, 33, 500], True), ([900, 3], False)):
        given = case(lengths, group, kv_heads, head_dim, norms)
        given = moved(moved(given, "cpu", torch.bfloat16), "cpu", torch.float32)
        merged, rotary, pool, step, weights = given
        mine = moved(given, "cuda", torch.bfloat16)
        seen = expected(merged, rotary, pool, step, options, weights)
        sinks = None if options.sinks is None else options.sinks.cuda()
        for _ in range(2):  # the counters are as they were
            output = rotary_attention(*mine[:4], options._replace(sinks=sinks), mine[4], parts)
        error = (output.cpu().float() - seen).norm() / seen.norm()
        assert error < 1e-2, (lengths, float(error))
        for ours, theirs in zip(mine[2], pool, strict=True):
            torch.testing.assert_close(ours.cpu().float(), theirs, rtol=1e-2, atol=1e-2)


@GPU
@pytest.mark.gpu
def test_a_row_that_is_no_number_spoils_no_other():
    merged, rotary, pool, step, _ = moved(case([40, 41], 4, 2, 128), "cuda", torch.bfloat16)
    merged[0, 0] = float("nan")
    output = rotary_attention(merged, rotary, pool, step, Options(0.1))
    assert output[0].isnan().any()
    assert output[1].isfinite().all()
