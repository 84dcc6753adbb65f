"""The Triton kernel for prefill attention against its plain reference.

On a GPU it is compiled; elsewhere Triton's interpreter runs it, which shows everything but speed.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import tiny_models
from llmkernel.worker.kernels.paged_attention import (
    Chunks,
    Options,
    PagedStep,
    Pool,
    PrefillRow,
    attend,
    prefill_attention,
    write_kv,
)
from tests.model.driving import Driver, make_prompt, make_runner
from tests.model.test_paged_attention import Paged

pytest.importorskip("triton", reason="pip install 'llmkernel[dev]' brings Triton")
from llmkernel.worker.kernels.tiled_attention import (
    Tiles,
    _parts,
    _tiles,
    tiled_prefill_attention,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Tiles(16, 16, 4, 1)
"""So small that a few tokens are several tiles."""
pytestmark = pytest.mark.timeout(120)


def on_device(paged: Paged, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, PagedStep]:
    """The queries and a step of prefill rows alone; `paged.pool` is moved, with all keys written."""
    step = paged.step()
    write_kv(paged.new(paged.keys), paged.new(paged.values), paged.pool, step.slot_mapping)
    paged.pool = Pool(*(tensor.to(DEVICE, dtype) for tensor in paged.pool))
    rows = [
        PrefillRow(row.first, row.count, row.start, row.block_table.to(DEVICE))
        for row in step.prefill
    ]
    mapping = step.slot_mapping.to(DEVICE)
    return torch.cat(paged.queries).to(DEVICE, dtype), PagedStep(mapping, None, rows, chunks(rows))


def chunks(rows: list[PrefillRow]) -> Chunks:
    """The rows as tensors; their slots are in turned order, and unused places hold other ids."""
    width = max(len(row.block_table) for row in rows) + 2
    tables = torch.full((len(rows) + 1, width), 3, dtype=torch.int64)
    slots = list(reversed(range(len(rows))))
    for slot, row in zip(slots, rows, strict=True):
        tables[slot, : len(row.block_table)] = row.block_table
    lengths = [row.start + row.count for row in rows]
    begins = [0, *itertools.accumulate(row.count for row in rows)]
    tensors = (torch.tensor(values, device=DEVICE) for values in (slots, lengths, begins))
    longest = max(row.count for row in rows)
    return Chunks(tables.to(DEVICE), *tensors, longest=longest, furthest=max(lengths))


def check(paged: Paged, options: Options, tiles: Tiles | None = SMALL, parts: int = 1) -> None:
    query, step = on_device(paged)
    kernel = functools.partial(tiled_prefill_attention, tiles=tiles, parts=parts)
    expected = attend(query, paged.pool, step, options)
    output = attend(query, paged.pool, step, options, prefill=kernel)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("head_dim", "window", "softcap", "sinks", "parts"),
    [
        *itertools.product([20], [None, 5, 40], [None, 2.0], [False, True], [1, 4]),
        *((head_dim, None, None, False, 1) for head_dim in (8, 64, 80, 96, 128, 256)),
    ],
)
def test_it_is_the_reference(head_dim, window, softcap, sinks, parts):
    paged = Paged(
        [0, 37, 90, 3], [19, 2, 11, 33], heads=6, kv_heads=2, head_dim=head_dim, block_size=16,
        seed=1,
    )  # fmt: skip
    sink = torch.randn(6).to(DEVICE) if sinks else None
    check(paged, Options(0.2, window, softcap, sink), parts=parts)


@pytest.mark.parametrize(
    ("heads", "kv_heads"), [(1, 1), (71, 1), (4, 4), (2, 1), (8, 2), (16, 2), (32, 2)]
)
@pytest.mark.parametrize("parts", [1, 2])
def test_every_sharing_of_key_heads(heads, kv_heads, parts):
    paged = Paged(
        [70, 0, 16], [3, 20, 16], heads=heads, kv_heads=kv_heads, head_dim=16, block_size=16, seed=2
    )
    check(paged, Options(0.25), parts=parts)


@pytest.mark.parametrize("tiles", [None, Tiles(32, 16, 4, 1), Tiles(16, 64, 4, 1)])
@pytest.mark.parametrize("window", [None, 1, 24, 64])
def test_every_tile(tiles, window):
    paged = Paged([130, 0], [70, 129], heads=4, kv_heads=1, head_dim=16, block_size=16, seed=3)
    check(paged, Options(0.25, window), tiles=tiles)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_chunks(data):
    row = st.tuples(st.integers(0, 30), st.integers(2, 20))
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    kv_heads, group = data.draw(st.sampled_from([(1, 1), (1, 4), (2, 1), (2, 3), (1, 8)]))
    options = Options(
        scale=data.draw(st.sampled_from([0.125, 1.0])),
        window=data.draw(st.sampled_from([None, 1, 5, 16, 33, 100])),
        softcap=data.draw(st.sampled_from([None, 2.0])),
        sinks=torch.randn(kv_heads * group).to(DEVICE) if data.draw(st.booleans()) else None,
    )
    paged = Paged(
        *map(list, zip(*rows, strict=True)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=data.draw(st.sampled_from([8, 20])),
        block_size=data.draw(st.sampled_from([4, 16])),
        seed=data.draw(st.integers(0, 1000)),
    )
    check(paged, options, parts=data.draw(st.sampled_from([1, 2, 8])))


@pytest.mark.parametrize("parts", [1, 4])
def test_what_lies_beyond_a_row_is_not_read(parts):
    # free places of the pool hold NaN
    paged = Paged([20, 7], [3, 2], heads=2, kv_heads=1, head_dim=16, block_size=4, seed=5)
    query, step = on_device(paged)
    output = tiled_prefill_attention(query, paged.pool, step.chunks, Options(0.3), SMALL, parts)
    assert output.isfinite().all()


@pytest.mark.filterwarnings("ignore:(invalid value|All-NaN):RuntimeWarning")
@pytest.mark.parametrize("parts", [1, 4])
def test_nan_in_a_row_stays_in_it(parts):
    paged = Paged([20, 7], [3, 2], heads=2, kv_heads=1, head_dim=16, block_size=4, seed=6)
    query, step = on_device(paged)
    query[:3] = torch.nan
    output = tiled_prefill_attention(query, paged.pool, step.chunks, Options(0.3), SMALL, parts)
    assert output[:3].isnan().all()
    assert output[3:].isfinite().all()


def test_queries_may_lie_apart():
    paged = Paged([9], [20], heads=4, kv_heads=2, head_dim=16, block_size=16, seed=7)
    query, step = on_device(paged)
    apart = query.transpose(0, 1).contiguous().transpose(0, 1)
    assert not apart.is_contiguous()
    options = Options(0.25)
    expected = prefill_attention(query, paged.pool, step.prefill[0], options)
    output = tiled_prefill_attention(apart, paged.pool, step.chunks, options, SMALL)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_float16_is_near():
    half_precision_is_near(torch.float16, 16)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter cannot multiply bfloat16")
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_bfloat16_is_near(head_dim, window, softcap):
    half_precision_is_near(torch.bfloat16, head_dim, window, softcap)


def half_precision_is_near(dtype, head_dim=64, window=None, softcap=None):
    paged = Paged(
        [100, 0, 31], [60, 90, 2], heads=8, kv_heads=2, head_dim=head_dim, block_size=16, seed=8
    )
    query, step = on_device(paged, dtype)
    exact = Pool(*(tensor.float() for tensor in paged.pool))
    options = Options(0.125, window, softcap)
    expected = attend(query.float(), exact, step, options)
    for parts in (1, 4):
        output = tiled_prefill_attention(query, paged.pool, step.chunks, options, parts=parts)
        assert output.dtype == dtype
        assert ((output.float() - expected).norm() / expected.norm()).item() < 1e-2


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-oss", "falcon-7b"])
def test_a_runner_with_it_answers_as_without(name):
    answers = []
    for prefill in (None, functools.partial(tiled_prefill_attention, tiles=SMALL)):
        model = tiny_models.build(name).to(DEVICE)
        loaded = {"model": model, "device": torch.device(DEVICE), "dtype": torch.float32}
        runner = make_runner(name, loaded=loaded)
        runner._state.prefill = prefill
        driver = Driver(runner, depth=1, chunk=24)
        sequences = []
        for length in (5, 30, 41):
            sequences.append(driver.add(make_prompt(length, length), 3))
            driver.step()
        driver.run()
        answers.append([list(sequence.output_ids) for sequence in sequences])
    assert answers[0] == answers[1]


def test_tiles_fit_into_what_a_program_may_have():
    for head, itemsize in itertools.product((16, 64, 128, 256), (2, 4)):
        sizes = [_tiles(head, itemsize, kib * 1024) for kib in (48, 99, 163, 227)]
        assert [size.queries for size in sizes] == sorted(size.queries for size in sizes)
        for kib, size in zip((48, 99, 163, 227), sizes, strict=True):
            assert size.shared_bytes(head, itemsize) <= kib * 1024 or size.queries <= 32


def test_keys_are_split_where_queries_are_few_and_keys_many():
    assert _parts(programs=8, furthest=8192) == 16
    assert _parts(programs=8, furthest=1500) == 2
    assert _parts(programs=8, furthest=100) == 1
    assert _parts(programs=200, furthest=8192) == 1
