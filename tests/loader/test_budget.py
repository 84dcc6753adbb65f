"""--gpu-memory: what it allows, what is left of it, and what is refused."""

from __future__ import annotations

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_checkpoints import config as small_config
from small_checkpoints import load_quietly

from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest, NotEnoughMemory
from llmkernel.parts import ModelInfo
from llmkernel.protocol import StatusReport
from llmkernel.report import _taken
from llmkernel.worker import budget, memory
from llmkernel.worker.assembly import LEAST_BLOCKS, blocks_for
from llmkernel.worker.budget import OUTSIDE, Widths

GIB = 2**30
LLAMA_8B = Widths(matrix=2 * 14336 * 4096, widest=2 * 14336, vocabulary=128256)


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [(20 * GIB, 20 * GIB), (0.5, 40 * GIB), (1.0, 80 * GIB), (100 * GIB, 80 * GIB)],
)
def test_a_bound_is_bytes_or_a_share(setting: float, allowed: int) -> None:
    assert budget.bound(setting, 80 * GIB) == allowed


@pytest.mark.parametrize("setting", [OUTSIDE, 0.001])
def test_a_bound_below_what_the_driver_takes_is_refused(setting: float) -> None:
    with pytest.raises(NotEnoughMemory, match="driver alone") as caught:
        budget.bound(setting, 80 * GIB)
    assert caught.value.data["needed"] == OUTSIDE


def test_on_the_cpu_it_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="gpu_memory"):
        load_quietly("demo", gpu_memory="2GiB")
    assert budget.impose(None, torch.device("cpu")) == 0


def test_a_workspace_of_an_8b_model_is_of_a_plausible_size() -> None:
    room = budget.workspace(LLAMA_8B, tokens=512 + 64, rows=64, item=2)
    assert 0.5 * GIB < room < 1.5 * GIB
    assert budget.workspace(LLAMA_8B, 8192, 64, 2) > room
    assert budget.workspace(LLAMA_8B, 576, 256, 2) > room


def test_widths_are_those_of_merged_layers() -> None:
    empty = memory.empty_model(small_config(hidden_size=64, intermediate_size=256))
    assert memory.widths(empty, 404) == Widths(2 * 64 * 256, 2 * 256, 404)


def test_weights_that_leave_too_little_are_refused_with_both_numbers() -> None:
    budget.check(8 * GIB, 6 * GIB, GIB)
    budget.check(0, 600 * GIB, GIB)
    with pytest.raises(NotEnoughMemory, match=r"7\.75 GiB in all.*allows 7\.00 GiB") as caught:
        budget.check(7 * GIB, 6 * GIB, GIB)
    assert caught.value.data == {"needed": 7 * GIB + OUTSIDE, "free": 7 * GIB}


@given(
    free=st.integers(-(2**40), 2**45),
    block=st.integers(1, 2**24),
    context=st.integers(16, 2**20),
    cache=st.none() | st.integers(1, 2**45),
)
def test_the_cache_never_takes_more_than_is_left(
    free: int, block: int, context: int, cache: int | None
) -> None:
    config = WorkerConfig.build(gpu_memory=0.9, kv_cache=cache)
    try:
        count = blocks_for(config, context, block, free)
    except InvalidRequest:
        assert cache is not None
        assert cache < LEAST_BLOCKS * block
        return
    except NotEnoughMemory:
        assert min(free, cache or free) < LEAST_BLOCKS * block
        return
    taken = (count + 1) * block
    assert taken <= free
    assert cache is None or taken <= cache
    assert count >= 2


def test_what_was_given_is_taken_as_far_as_there_is_use_for_it() -> None:
    bounded = WorkerConfig.build(gpu_memory=0.9, max_concurrent=4)
    unasked = WorkerConfig.build(max_concurrent=4)
    block = 2**20
    assert blocks_for(bounded, 2048, block, 300 * block) == 299
    assert blocks_for(unasked, 2048, block, 300 * block) < 150
    assert blocks_for(bounded, 2048, block, 10**6 * block) == 4 * 128 + 1
    asked = msgspec.structs.replace(bounded, kv_cache=500 * block)
    assert blocks_for(asked, 2048, block, 300 * block) == 299
    assert blocks_for(asked, 2048, block, 900 * block) == 499


def test_the_status_shows_the_bound() -> None:
    known = {"id": 1, "state": "ready", "name": "m", "instance": "", "pid": 1, "uptime": 1.0}
    report = StatusReport(**known, device_bytes=5 * 10**9)
    assert _taken(report) == "5.0 GB"
    bounded = msgspec.structs.replace(report, model=ModelInfo(model="m", gpu_memory=20 * 10**9))
    assert _taken(bounded) == "5.0 GB of 20.0 GB at most"
