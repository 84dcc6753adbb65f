from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkernel.worker.kernels.paged_attention import (
    DecodeRows,
    Options,
    PagedStep,
    Pool,
    PrefillRow,
    decode_attention,
    paged_attention,
)

BLOCKS = 40


def dense(query, keys, values, options):
    """Attention of the last `query.shape[0]` tokens of one sequence, in float64, by definition."""
    count, heads, head_dim = query.shape
    total, kv_heads, _ = keys.shape
    output = torch.zeros(count, heads, head_dim, dtype=torch.float64)
    for i in range(count):
        position = total - count + i
        oldest = 0 if options.window is None else max(0, position - options.window + 1)
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            seen = keys[oldest : position + 1, kv_head].double()
            scores = seen @ query[i, head].double() * options.scale
            if options.softcap is not None:
                scores = options.softcap * torch.tanh(scores / options.softcap)
            if options.sinks is not None:
                scores = torch.cat((scores, options.sinks[head : head + 1].double()))
            weights = scores.softmax(0)[: len(seen)]
            output[i, head] = weights @ values[oldest : position + 1, kv_head].double()
    return output.float()


class Paged:
    """Sequences of random tokens in a pool whose free places hold NaN."""

    def __init__(self, contexts, counts, *, heads, kv_heads, head_dim, block_size, seed):
        self.rng = random.Random(seed)
        torch.manual_seed(seed)
        self.block_size = block_size
        shape = (BLOCKS + 1, block_size, kv_heads, head_dim)
        self.pool = Pool(torch.full(shape, torch.nan), torch.full(shape, torch.nan))
        self.pool.keys[-1] = self.pool.values[-1] = 0
        self.keys = [
            torch.randn(c + n, kv_heads, head_dim) for c, n in zip(contexts, counts, strict=True)
        ]
        self.values = [torch.randn_like(k) for k in self.keys]
        self.queries = [torch.randn(n, heads, head_dim) for n in counts]
        self.contexts, self.counts = contexts, counts
        free = self.rng.sample(range(1, BLOCKS), BLOCKS - 1)
        sizes = [-(-(c + n) // block_size) for c, n in zip(contexts, counts, strict=True)]
        self.tables = [torch.tensor([free.pop() for _ in range(size)]) for size in sizes]
        for i, context in enumerate(contexts):
            slots = self.slots(i)[:context]
            self.pool.keys.flatten(0, 1)[slots] = self.keys[i][:context]
            self.pool.values.flatten(0, 1)[slots] = self.values[i][:context]

    def slots(self, i):
        offsets = torch.arange(self.block_size)
        slots = (self.tables[i][:, None] * self.block_size + offsets).flatten()
        return slots[: self.contexts[i] + self.counts[i]]

    def step(self):
        decoding = sum(count == 1 for count in self.counts)
        mapping = torch.cat([self.slots(i)[c:] for i, c in enumerate(self.contexts)])
        decode = None
        if decoding:
            width = max(len(table) for table in self.tables[:decoding])
            padded = torch.zeros(decoding, width, dtype=torch.int64)
            for i in range(decoding):
                padded[i, : len(self.tables[i])] = self.tables[i]
            lengths = torch.tensor(self.contexts[:decoding]) + 1
            decode = DecodeRows(padded, torch.arange(decoding), lengths, width)
        first, prefill = decoding, []
        for i in range(decoding, len(self.counts)):
            row = PrefillRow(first, self.counts[i], self.contexts[i], self.tables[i])
            prefill.append(row)
            first += self.counts[i]
        return PagedStep(mapping, decode, prefill)

    def new(self, tensors):
        return torch.cat([t[c:] for t, c in zip(tensors, self.contexts, strict=True)])

    def attend(self, options):
        query = torch.cat(self.queries)
        return paged_attention(
            query, self.new(self.keys), self.new(self.values), self.pool, self.step(), options
        )

    def expected(self, options):
        columns = zip(self.queries, self.keys, self.values, strict=True)
        return torch.cat([dense(q, k, v, options) for q, k, v in columns])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_matches_dense_attention_for_any_mixture_of_rows(data):
    decode_contexts = data.draw(st.lists(st.integers(0, 40), max_size=3))
    prefill = data.draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(2, 12)), max_size=2).filter(
            lambda rows: rows or decode_contexts
        )
    )
    contexts = decode_contexts + [c for c, _ in prefill]
    counts = [1] * len(decode_contexts) + [n for _, n in prefill]
    kv_heads, group = data.draw(st.sampled_from([(1, 1), (1, 4), (2, 1), (2, 3)]))
    heads = kv_heads * group
    options = Options(
        scale=data.draw(st.sampled_from([0.125, 1.0])),
        window=data.draw(st.sampled_from([None, 1, 5, 16, 100])),
        softcap=data.draw(st.sampled_from([None, 2.0])),
        sinks=torch.randn(heads) if data.draw(st.booleans()) else None,
    )
    paged = Paged(
        contexts,
        counts,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=data.draw(st.sampled_from([8, 20])),
        block_size=data.draw(st.sampled_from([4, 16])),
        seed=data.draw(st.integers(0, 1000)),
    )
    torch.testing.assert_close(paged.attend(options), paged.expected(options), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_matches_dense_attention_for_the_head_sizes_of_real_models(head_dim, softcap):
    paged = Paged(
        [37, 3, 20], [1, 1, 6], heads=4, kv_heads=2, head_dim=head_dim, block_size=16, seed=1
    )
    options = Options(head_dim**-0.5, softcap=softcap)
    torch.testing.assert_close(paged.attend(options), paged.expected(options), rtol=1e-4, atol=1e-5)


def test_rows_taken_in_groups_are_the_rows_taken_together(monkeypatch):
    paged = Paged([30, 5, 17, 9], [1] * 4, heads=4, kv_heads=2, head_dim=8, block_size=4, seed=2)
    options = Options(0.3)
    monkeypatch.setattr("llmkernel.worker.kernels.paged_attention._GATHER_ELEMENTS", 1)
    torch.testing.assert_close(paged.attend(options), paged.expected(options), rtol=1e-4, atol=1e-5)


def test_scored_queries_taken_in_slices_are_the_queries_taken_together(monkeypatch):
    paged = Paged([11], [9], heads=4, kv_heads=2, head_dim=8, block_size=4, seed=3)
    options = Options(0.3, softcap=2.0, sinks=torch.randn(4))
    monkeypatch.setattr("llmkernel.worker.kernels.paged_attention._SCORE_ELEMENTS", 200)
    torch.testing.assert_close(paged.attend(options), paged.expected(options), rtol=1e-4, atol=1e-5)


def test_a_row_of_nan_stays_alone():
    paged = Paged([20, 20, 20], [1, 1, 5], heads=2, kv_heads=1, head_dim=8, block_size=4, seed=4)
    options = Options(0.3)
    paged.queries[1].fill_(torch.nan)
    paged.keys[1][-1] = torch.nan
    output = paged.attend(options)
    assert output[1].isnan().all()
    alone = [0, 2, 3, 4, 5, 6]
    torch.testing.assert_close(output[alone], paged.expected(options)[alone], rtol=1e-4, atol=1e-5)


def test_rows_of_padding_change_nothing():
    paged = Paged([20, 7], [1, 1], heads=2, kv_heads=1, head_dim=8, block_size=4, seed=5)
    options = Options(0.3, window=6)
    plain = paged.attend(options)
    rows = paged.step().decode
    wide = DecodeRows(
        torch.nn.functional.pad(rows.tables, (0, 3, 0, 1)),
        torch.nn.functional.pad(rows.slots, (0, 2), value=2),
        torch.nn.functional.pad(rows.context_lens, (0, 2), value=1),
        rows.width + 3,
    )
    query = torch.nn.functional.pad(torch.cat(paged.queries), (0, 0, 0, 0, 0, 2))
    torch.testing.assert_close(decode_attention(query, paged.pool, wide, options)[:2], plain)


def test_the_decode_part_reads_nothing_from_the_device():
    # on the meta device a value cannot be read, so any wait for the device would raise
    pool = Pool(*(torch.empty(9, 4, 2, 8, device="meta") for _ in range(2)))
    rows = DecodeRows(
        torch.empty(9, 5, dtype=torch.int64, device="meta"),
        torch.empty(3, dtype=torch.int64, device="meta"),
        torch.empty(3, dtype=torch.int64, device="meta"),
        width=5,
    )
    mapping = torch.empty(3, dtype=torch.int64, device="meta")
    query = torch.empty(3, 4, 8, device="meta")
    key = torch.empty(3, 2, 8, device="meta")
    for options in (Options(1.0, window=6), Options(1.0, softcap=2.0)):
        output = paged_attention(query, key, key, pool, PagedStep(mapping, rows, []), options)
        assert output.shape == query.shape
