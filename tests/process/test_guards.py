"""The decisions of a worker's life, without the process around them."""

from __future__ import annotations

import asyncio
import gc
import math
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest, NotEnoughMemory
from llmkernel.protocol import Progress
from llmkernel.worker import lifecycle, service
from llmkernel.worker.assembly import BLOCK_SIZE, MODEST_SHARE, MODEST_TOKENS, blocks_for
from llmkernel.worker.lifecycle import Departure

pytestmark = pytest.mark.timeout(30)


# Departure -----------------------------------------------------------------------


def test_time_runs_out_on_what_does_not_end():
    async def scene() -> tuple[bool, float]:
        departure = Departure()
        loop = asyncio.get_running_loop()
        began = loop.time()
        departure.decide("a test", drain=0.2)
        return await departure.drained(lambda: True), loop.time() - began

    drained, took = asyncio.run(scene())
    assert not drained
    assert took >= 0.2


def test_nobody_waits_longer_than_there_is_work():
    async def scene() -> bool:
        departure = Departure()
        departure.decide("a test", drain=1000)
        work = iter([True, True, False])
        return await departure.drained(lambda: next(work))

    assert asyncio.run(scene())


def test_a_later_reason_makes_it_sooner_and_never_later():
    async def scene() -> bool:
        departure = Departure()
        departure.decide("first", drain=1000)
        asyncio.get_running_loop().call_later(0.1, lambda: departure.decide("second", drain=0))
        asyncio.get_running_loop().call_later(0.05, lambda: departure.decide("no", drain=2000))
        return await departure.drained(lambda: True)

    assert not asyncio.run(scene())


def test_the_first_exit_code_that_says_something_stays():
    async def scene() -> int:
        departure = Departure()
        departure.decide("asked", drain=0)
        departure.decide("broken", drain=0, exit_code=70)
        departure.decide("asked again", drain=0, exit_code=1)
        await departure.wait()
        return departure.exit_code

    assert asyncio.run(scene()) == 70


# Steps ---------------------------------------------------------------------------


def watched(seconds: list[float], limit: float) -> list[float]:
    """What `guard_steps` gave up at, while a step looked as long as these, one a second."""
    given_up: list[float] = []
    looks = iter(seconds)

    async def scene() -> None:
        async def no_pause(_: float) -> None:
            pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lifecycle.asyncio, "sleep", no_pause)
            await lifecycle.guard_steps(lambda: next(looks), limit, given_up.append)

    with pytest.raises(RuntimeError) if max(seconds) < limit else nullcontext():
        asyncio.run(scene())
    return given_up


def test_a_step_is_given_up_on_at_the_limit(caplog):
    assert watched([0, 1, 0, 29, 30.5], limit=30) == [30.5]
    assert "has not come back" in caplog.text
    assert "thread MainThread" in caplog.text


def test_a_slow_step_is_reported_once_and_waited_for(caplog):
    assert watched([29, 31, 32, 33, 0, 31, 0], limit=600) == []
    assert caplog.text.count("one step has been going on for 31 s") == 2
    assert "32 s" not in caplog.text


def test_limits_follow_the_device_and_the_environment(monkeypatch):
    monkeypatch.delenv("LLMKERNEL_WATCHDOG", raising=False)
    assert lifecycle.stuck_after("cuda:1") == 30
    assert lifecycle.stuck_after("cpu") == 600
    monkeypatch.setenv("LLMKERNEL_WATCHDOG", "5")
    assert lifecycle.stuck_after("cuda:1") == 5
    monkeypatch.setenv("LLMKERNEL_WATCHDOG", "0")
    assert lifecycle.stuck_after("cuda:1") == math.inf


# Threads -------------------------------------------------------------------------


def test_what_a_thread_returns_or_raises_arrives():
    async def scene() -> int:
        with pytest.raises(ZeroDivisionError):
            await service.in_thread(lambda: 1 // 0)
        return await service.in_thread(lambda: 5)

    assert asyncio.run(scene()) == 5


def test_progress_is_passed_on_at_a_rate_that_can_be_looked_at():
    shown: list[Progress] = []
    relay = service.Relay(shown.append)
    for done in range(10001):
        relay(Progress(stage="download", done=done, total=10000))
    relay(Progress(stage="read", done=0, total=10))
    assert shown[0].done == 0
    assert shown[-2] == Progress(stage="download", done=10000, total=10000)
    assert shown[-1].stage == "read"
    assert len(shown) < 100


# Blocks --------------------------------------------------------------------------

SIZES = st.integers(1, 2**45)


@given(
    free=SIZES,
    block=st.integers(1, 2**24),
    context=st.integers(16, 2**20),
    rows=st.integers(1, 256),
)
def test_what_is_taken_unasked_is_modest(free, block, context, rows):
    config = WorkerConfig.build(max_concurrent=rows)
    if 3 * block > free:  # not even one usable block fits
        with pytest.raises(NotEnoughMemory) as caught:
            blocks_for(config, context, block, free)
        assert caught.value.data == {"needed": 3 * block, "free": free}
        return
    count = blocks_for(config, context, block, free)
    taken = (count + 1) * block  # with the block that stays zero
    assert count >= 2
    assert taken <= free
    whole = -(-context // BLOCK_SIZE) + 2
    fits = whole * block <= free // 2
    assert taken <= max(free * MODEST_SHARE, fits * whole * block, 3 * block)
    assert (count - 1) * BLOCK_SIZE <= max(rows * min(context, MODEST_TOKENS), context + BLOCK_SIZE)
    if 2 * whole * block <= free:
        assert count + 1 >= whole or count * BLOCK_SIZE >= context


def test_what_is_asked_for_is_taken_or_refused_with_both_numbers():
    block = 2**20
    config = WorkerConfig.build(kv_cache="1GiB")
    assert blocks_for(config, 4096, block, free=2**40) == 1023
    with pytest.raises(NotEnoughMemory, match=r"needs 1\.00 GiB, and 0\.50 GiB are free") as caught:
        blocks_for(config, 4096, block, free=2**29)
    assert caught.value.data == {"needed": 2**30, "free": 2**29}
    with pytest.raises(InvalidRequest, match=f"holds nothing.* Give {3 * block} or more"):
        blocks_for(WorkerConfig.build(kv_cache=2 * block), 4096, block, free=2**40)


def test_what_is_loaded_is_no_longer_looked_through():
    before = gc.get_threshold()
    try:
        lifecycle.settle()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
        assert gc.isenabled(), "what goes round in circles is still freed"
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
