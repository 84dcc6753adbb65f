"""Rotation, the write of keys and decode attention in one kernel, against the plain reference.

On a GPU with clusters it is compiled; elsewhere the processor runs it (tests/model/on_host).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.worker.kernels import cluster_attention, launch, layer
from llmkernel.worker.kernels.cluster_attention import roped_attention
from llmkernel.worker.kernels.paged_attention import DecodeRows, Options, Pool, decode_attention
from llmkernel.worker.models import attention
from llmkernel.worker.models.packed import pack_layers
from tests.model import on_host
from tests.model.driving import Driver, make_prompt, make_runner
from tests.model.quantised import quantise

pytestmark = pytest.mark.timeout(120)
BF16, F16 = torch.bfloat16, torch.float16
ON_GPU = torch.cuda.is_available() and torch.cuda.get_device_capability() >= launch.EARLY_START
DEVICE = "cuda" if ON_GPU else "cpu"
BLOCK = 16


@pytest.fixture(autouse=True, params=range(1 if ON_GPU else 3))
def order(request, monkeypatch):
    """On the processor threads run in one order after the other."""
    if not ON_GPU:
        on_host.need_a_compiler()
        monkeypatch.setattr(launch, "kernel", on_host.kernel)
        monkeypatch.setattr(cluster_attention, "processors", lambda device: 132)
        monkeypatch.setattr(on_host.Kernel, "seed", request.param)


@dataclass
class Problem:
    """Rows of these lengths, the new token included, whose older keys lie in random blocks."""

    lengths: list[int]
    kv_heads: int = 2
    group: int = 4
    head_dim: int = 128
    dtype: torch.dtype = BF16

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.group)
        count, blocks = len(self.lengths), -(-max(self.lengths) // BLOCK)
        self.merged = self.random(count, (self.group + 2) * self.kv_heads * self.head_dim)
        angles = self.random(count, self.head_dim // 2).float().repeat(1, 2)
        self.rotary = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        shape = (count * blocks + 2, BLOCK, self.kv_heads, self.head_dim)
        self.pool = Pool(self.random(*shape), self.random(*shape))
        order = torch.randperm(count * blocks, generator=self._generator)
        tables = (order + 1).view(count, blocks).to(DEVICE)
        slots = torch.randperm(count, generator=self._generator).to(DEVICE)
        lengths = torch.tensor(self.lengths, device=DEVICE)
        self.rows = DecodeRows(tables, slots, lengths, blocks)
        last = lengths - 1
        self.places = tables[slots, last // BLOCK] * BLOCK + last % BLOCK

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator).to(DEVICE, self.dtype)

    def norms(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        return self.random(self.head_dim), self.random(self.head_dim), 1e-6

    def check(self, options: Options, norms: Any = None, cluster: int = 0) -> None:
        """Compare with the reference in float32, what is written to the pool as well."""
        wide = Pool(self.pool.keys.float().cpu(), self.pool.values.float().cpu())
        rows = DecodeRows(
            self.rows.tables.cpu(),
            self.rows.slots.cpu(),
            self.rows.context_lens.cpu(),
            self.rows.width,
        )
        query = layer.rope_write(
            self.merged.float().cpu(),
            tuple(one.float().cpu() for one in self.rotary),
            wide,
            self.places.cpu(),
            norms and (norms[0].float().cpu(), norms[1].float().cpu(), norms[2]),
        )
        sinks = None if options.sinks is None else options.sinks.float().cpu()
        expected = decode_attention(query, wide, rows, options._replace(sinks=sinks))
        mine = self.mine(options, norms, cluster).float().cpu()
        assert ((mine - expected).norm() / expected.norm()).item() < 1e-2
        close = {"rtol": 1e-2, "atol": 3e-2}
        torch.testing.assert_close(self.pool.keys.float().cpu(), wide.keys, **close)
        torch.testing.assert_close(self.pool.values.float().cpu(), wide.values, **close)

    def mine(self, options: Options, norms: Any = None, cluster: int = 0) -> torch.Tensor:
        return roped_attention(
            self.merged, self.rotary, self.pool, self.places, self.rows, options, norms, cluster
        )


LENGTHS = [1, 2, 16, 17, 33, 150]


@pytest.mark.parametrize("cluster", [1, 2, 4, 8])
def test_rows_of_any_length_are_near_the_reference(cluster):
    Problem(LENGTHS).check(Options(0.09), cluster=cluster)


TURN = 16 * cluster_attention._WARPS
"""Tokens that the warps of a block take in a turn."""


@pytest.mark.parametrize("window", [None, 3 * TURN + 1, 2 * TURN])
@pytest.mark.parametrize("cluster", [1, 2])
def test_tiles_that_are_read_while_others_are_computed(cluster, window):
    turn = TURN * cluster
    lengths = [turn, turn + 1, 2 * turn, 2 * turn + 1, 2 * turn + 16, 3 * turn - 7, 4 * turn + 25]
    Problem(lengths, kv_heads=1).check(Options(0.09, window), cluster=cluster)


@pytest.mark.parametrize("window", [1, 5, 16, 40])
def test_a_window_hides_what_is_older(window):
    Problem(LENGTHS).check(Options(0.09, window), cluster=2)


@pytest.mark.parametrize(("head_dim", "dtype"), list(itertools.product([64, 128], [BF16, F16])))
def test_soft_caps_sinks_and_norms_of_heads(head_dim, dtype):
    problem = Problem(LENGTHS[2:], group=8, head_dim=head_dim, dtype=dtype)
    options = Options(head_dim**-0.5, softcap=2.0, sinks=problem.random(16))
    problem.check(options, problem.norms(), cluster=4)


@pytest.mark.parametrize("group", [1, 3, 7])
def test_every_group_of_query_heads(group):
    Problem([40], group=group).check(Options(0.09))


def test_what_is_no_number_stays_in_its_row():
    problem = Problem([20, 30, 40])
    problem.merged[1] = torch.nan
    mine = problem.mine(Options(0.09))
    assert mine[1].isnan().all()
    assert mine[[0, 2]].isfinite().all()


def test_what_lies_beyond_a_row_is_not_read():
    problem = Problem([20, 30])
    for row, length in enumerate(problem.lengths):
        table = problem.rows.tables[problem.rows.slots[row]]
        for one in problem.pool:
            one[table[length // BLOCK], length % BLOCK :] = torch.nan
    assert problem.mine(Options(0.09)).isfinite().all()


@pytest.mark.parametrize(
    ("processors", "chosen"), [(132, [8, 8, 4, 4, 2, 2, 1, 1]), (46, [4, 2, 1, 1, 1, 1, 1, 1])]
)
def test_clusters_fill_the_device_with_few_rows(processors, chosen):
    rows = (1, 2, 3, 4, 5, 8, 9, 128)
    assert [cluster_attention._cluster(8 * count, processors) for count in rows] == chosen


@pytest.mark.skipif(ON_GPU, reason="nothing has to run")
@pytest.mark.parametrize("normed", [False, True])
def test_what_is_launched_is_what_is_compiled(normed, monkeypatch):
    launched = []

    def kernel(name, dtype, shared, carveout, **sizes):
        launched.append((name, sizes))
        return lambda *arguments: None

    monkeypatch.setattr(launch, "kernel", kernel)
    for rows in range(1, 80):
        problem = Problem([1] * rows)
        problem.mine(Options(0.09), problem.norms() if normed else None)
    wanted = list(
        cluster_attention.kernels_of(problem.pool, problem.merged.shape[1], normed=normed)
    )
    assert len(wanted) == 4
    assert {str(one) for one in launched} == {str(one) for one in wanted}
    wide = Problem([1], group=9)
    assert not list(cluster_attention.kernels_of(wide.pool, wide.merged.shape[1], normed=normed))


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # bitsandbytes brings them
@pytest.mark.skipif(ON_GPU, reason="it stands in for the kernel where there is none")
def test_only_steps_whose_rows_stand_apart_take_it(monkeypatch, order):
    taken = []

    def recorded(merged, rotary, pool, places, rows, options, norms):
        taken.append(len(places))
        query = layer.rope_write(merged, rotary, pool, places, norms)
        return decode_attention(query, pool, rows, options)

    monkeypatch.setattr(cluster_attention, "HEAD_DIMS", (16, 64, 128))
    answers = []
    for roped in (None, recorded):
        monkeypatch.setattr(attention, "roped_attention_for", lambda device, roped=roped: roped)
        model = quantise(tiny_models.build("llama"), torch.float32, "cpu")
        pack_layers(model)
        runner = make_runner("llama", loaded={"model": model})
        probed = len(taken)
        driver = Driver(runner, depth=1, chunk=9)
        sequences = [driver.add(make_prompt(n, n), 12) for n in (5, 17, 40)]
        driver.run()
        answers.append([list(sequence.output_ids) for sequence in sequences])
    assert answers[0] == answers[1]
    layers = model.config.num_hidden_layers
    assert probed == layers, "a decode row of each layer is compared with transformers' code"
    assert set(taken[probed:]) <= {1, 2, 3}
    assert len(taken[probed:]) >= 10 * layers


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device with clusters")
@pytest.mark.parametrize("rows", [1, 8, 24])
@pytest.mark.parametrize("group", [4, 7, 8])
def test_long_rows_on_a_gpu(rows, group):
    lengths = torch.randint(1, 5000, (rows,), generator=torch.Generator().manual_seed(rows))
    Problem(lengths.tolist(), kv_heads=8, group=group).check(Options(0.09))
