"""Every sequence ends exactly once, for the right reason, and leaves nothing."""

from __future__ import annotations

import random
import threading
import time

import pytest

from llmkernel.errors import (
    DeviceOutOfMemory,
    EngineDied,
    NumericalError,
    PromptTooLong,
    StepFailed,
)
from llmkernel.worker.scripted import EOS, Script
from tests.engine.driver import Driver, alone, request, workload


def test_an_answer_ends_by_itself_or_at_its_limit() -> None:
    driver = Driver(Script(eos_after=10))
    driver.engine.submit(request(1))
    driver.engine.submit(request(2, max_tokens=5))
    driver.engine.submit(request(3, ignore_eos=True))
    driver.engine.submit(request(4, min_tokens=20))
    driver.run()
    assert [driver.reason(key) for key in (1, 2, 3, 4)] == ["stop", "length", "length", "stop"]
    assert [len(driver.tokens[key, 0]) for key in (1, 2, 3, 4)] == [11, 5, 32, 21]
    assert driver.tokens[1, 0][-1] == EOS


def test_a_stop_token_is_named() -> None:
    driver = Driver(Script(eos_after=30))
    driver.engine.submit(request(1, stop_token_ids=[ord(" ")]))
    driver.run()
    assert driver.ends[1, 0].stop_reason == ord(" ")


@pytest.mark.parametrize("depth", [0, 1])
def test_a_cancelled_request_frees_its_blocks_in_one_step(depth: int) -> None:
    driver = Driver(depth=depth)
    driver.engine.submit(request(1, "c" * 400, max_tokens=500, ignore_eos=True))
    driver.step(10)
    driver.engine.cancel(1)
    driver.step()
    assert driver.reason(1) == "cancelled"
    assert driver.engine.load().free_blocks == driver.num_blocks - 1


def test_finish_ends_one_answer_and_leaves_the_others() -> None:
    driver = Driver(Script(eos_after=20))
    driver.engine.submit(request(1, temperature=1.0, n=3, max_tokens=30))
    driver.step(8)
    driver.engine.finish(1, 1)
    driver.run()
    assert [len(driver.tokens[1, answer]) < 20 for answer in range(3)] == [False, True, False]
    assert driver.reason(1, 1) == "stop"


def test_unknown_keys_are_no_error() -> None:
    driver = Driver()
    driver.engine.cancel(99)
    driver.engine.finish(99, 0)
    driver.engine.pause(99)
    driver.engine.resume(99)
    driver.run()


def test_churn_leaks_nothing() -> None:
    """10,000 random orders, most of them rude."""
    chance = random.Random(7)
    driver = Driver(num_blocks=80, max_concurrent=6, depth=1)
    requests = iter(workload(1, 10_000))
    alive: list[int] = []
    for _ in range(10_000):
        action = chance.choice(("submit", "cancel", "pause", "resume", "finish", "step", "step"))
        if action == "step":
            driver.step()
        elif action == "submit" and len(alive) < 60:
            one = next(requests)
            alive.append(one.key)
            driver.engine.submit(one)
        elif alive and action != "submit":
            key = chance.choice(alive)
            if action == "finish":
                driver.engine.finish(key, 0)
            else:
                getattr(driver.engine, action)(key)
        alive = [key for key in alive if key in driver.engine.keys or chance.random() > 0.2]
    for key in list(driver.engine.keys):
        driver.engine.resume(key)
    driver.run()
    assert len(driver.ends) > 1000


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("at", [1, 7, 50])
def test_a_step_that_raises_fails_the_requests_in_it_only(at: int, depth: int) -> None:
    driver = Driver(Script(fail_at_step=at), depth=depth, max_concurrent=4)
    requests = workload(2, 30)
    for one in requests:
        driver.engine.submit(one)
    driver.run()
    expected = alone(workload(2, 30))
    failed = {name for name, end in driver.ends.items() if end.error}
    assert 1 <= len(failed) <= 4
    assert all(isinstance(driver.ends[name].error, StepFailed) for name in failed)
    for name, tokens in expected.items():
        if name not in failed:
            assert driver.tokens[name] == tokens


def test_memory_gone_in_a_decode_step_costs_time_and_no_answer() -> None:
    driver = Driver(Script(oom_at_step=12), max_concurrent=4)
    for key in range(4):
        driver.engine.submit(request(key, f"prompt {key}", ignore_eos=True))
    driver.run()
    assert not any(end.error for end in driver.ends.values())
    assert driver.engine.load().preemptions == 1
    fresh = alone([request(key, f"prompt {key}", ignore_eos=True) for key in range(4)])
    assert driver.tokens == fresh


def test_memory_gone_in_a_prefill_fails_that_request() -> None:
    driver = Driver(Script(oom_at_step=1))
    driver.engine.submit(request(1, "p" * 100))
    driver.run()
    assert isinstance(driver.error(1), DeviceOutOfMemory)
    driver.engine.submit(request(2, "p" * 100))
    driver.run()
    assert driver.error(2) is None


def test_nan_fails_its_own_request_and_leaves_no_trace_in_the_cache() -> None:
    driver = Driver(Script(nan_for="poison"), max_batch_tokens=32)
    healthy = [request(key, f"fine {key} " * 10) for key in range(15)]
    for one in healthy:
        driver.engine.submit(one)
    driver.engine.submit(request(99, "poison " * 40))
    driver.run()
    assert isinstance(driver.error(99), NumericalError)
    assert all(driver.error(one.key) is None for one in healthy)
    driver.engine.submit(again := request(100, "poison " * 40))
    driver.run()
    assert again.cached_tokens == 0


def test_a_request_that_can_never_fit_is_refused_with_both_numbers() -> None:
    engine = Driver(num_blocks=11).engine
    assert engine.check_fits(100, None, 1) == 60
    assert engine.check_fits(100, 60, 1) == 60
    with pytest.raises(PromptTooLong) as caught:
        engine.check_fits(100, 61, 1)
    assert caught.value.data == {"needed": 161, "limit": 160}
    with pytest.raises(PromptTooLong):
        engine.check_fits(160, None, 1)


def wait_for(condition: object, seconds: float = 10) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_lost_device_ends_everything_once(depth: int) -> None:
    driver = Driver(Script(die_at_step=5), depth=depth, max_concurrent=2)
    for key in range(6):
        driver.engine.submit(request(key, ignore_eos=True))
    driver.engine.start()
    wait_for(lambda: driver.deaths)
    assert len(driver.deaths) == 1
    assert {key for key, _ in driver.ends} == set(range(6))
    assert all(isinstance(end.error, EngineDied) for end in driver.ends.values())
    driver.engine.submit(request(7))
    wait_for(lambda: (7, 0) in driver.ends)
    assert isinstance(driver.error(7), EngineDied)
    driver.engine.stop()


def test_stop_ends_what_runs_and_what_waits() -> None:
    driver = Driver(Script(step_ms=2), max_concurrent=2)
    driver.engine.start()
    for key in range(6):
        driver.engine.submit(request(key, ignore_eos=True, max_tokens=1000))
    wait_for(lambda: driver.tokens)
    driver.engine.stop()
    assert {end.finish_reason for end in driver.ends.values()} == {"cancelled"}
    assert len(driver.ends) == 6
    assert threading.active_count() == 1 or not any(
        thread.name == "engine" for thread in threading.enumerate()
    )


def test_an_idle_engine_uses_no_time() -> None:
    driver = Driver()
    driver.engine.start()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05
    driver.engine.stop()
