"""Every sequence ends exactly once, for the right reason, and leaves nothing."""

from __future__ import annotations

import random
import threading
import time

import pytest

from llmkernel.errors import InvalidRequest, PromptTooLong
from llmkernel.worker.scripted import EOS, Script
from tests.engine.driver import Driver, request, workload


def test_an_answer_ends_by_itself_or_at_its_limit() -> None:
    driver = Driver(Script(eos_after=10))
    driver.submit(
        request(1),
        request(2, max_tokens=5),
        request(3, ignore_eos=True),
        request(4, min_tokens=20),
        request(5, max_tokens=11),
    )
    driver.run()
    reasons = [driver.reason(key) for key in (1, 2, 3, 4, 5)]
    assert reasons == ["stop", "length", "length", "stop", "stop"]
    assert [len(driver.tokens[key, 0]) for key in (1, 2, 3, 4, 5)] == [11, 5, 32, 21, 11]
    assert driver.tokens[1, 0][-1] == EOS


def test_a_stop_token_is_named() -> None:
    driver = Driver(Script(eos_after=30))
    driver.submit(request(1, stop_token_ids=[ord(" ")]))
    driver.run()
    assert driver.ends[1, 0].stop_reason == ord(" ")
    assert driver.tokens[1, 0].index(ord(" ")) == len(driver.tokens[1, 0]) - 1


@pytest.mark.parametrize("params", [{"stop_token_ids": [ord(" ")]}, {}])
def test_nothing_ends_an_answer_before_min_tokens(params: dict) -> None:
    """Even where the sampler gives such a token: the sampler is another room."""
    driver = Driver()
    one = request(1, min_tokens=25, max_tokens=60, **params)
    if not params:
        one.eos_token_ids = frozenset({ord(" ")})
    driver.submit(one)
    driver.run()
    first = driver.tokens[1, 0].index(ord(" "))
    assert first < 24
    assert len(driver.tokens[1, 0]) >= 25


@pytest.mark.parametrize("depth", [0, 1])
def test_a_cancelled_request_frees_its_blocks_in_one_step(depth: int) -> None:
    driver = Driver(depth=depth)
    driver.submit(request(1, "c" * 400, max_tokens=500, ignore_eos=True))
    driver.step(10)
    driver.engine.cancel(1)
    driver.step()
    assert driver.reason(1) == "cancelled"
    assert driver.engine.load().free_blocks == driver.num_blocks - 1


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_request_can_be_cancelled_at_any_time(steps: int, depth: int) -> None:
    driver = Driver(depth=depth, max_concurrent=4, max_batch_tokens=64, num_blocks=40)
    driver.submit(request(0, "first"), request(1, "x" * 150, temperature=1.0, n=6))
    driver.step(steps)
    driver.engine.cancel(1)
    driver.run()
    assert {driver.reason(1, answer) for answer in range(6)} == {"cancelled"}
    assert driver.reason(0) in ("stop", "length")


def test_finish_ends_one_answer_and_leaves_the_others() -> None:
    driver = Driver(Script(eos_after=20))
    driver.submit(request(1, temperature=1.0, n=3, max_tokens=30))
    driver.step(8)
    driver.engine.finish(1, 1)
    driver.run()
    assert [len(driver.tokens[1, answer]) < 20 for answer in range(3)] == [False, True, False]
    assert driver.reason(1, 1) == "stop"


def test_what_is_unknown_is_no_error() -> None:
    driver = Driver()
    driver.submit(request(1))
    driver.engine.cancel(99)
    driver.engine.finish(99, 0)
    driver.engine.finish(1, 5)
    driver.engine.pause(99)
    driver.engine.resume(99)
    driver.run()
    driver.engine.finish(1, 0)
    driver.engine.cancel(1)
    driver.run()
    assert list(driver.ends) == [(1, 0)]


@pytest.mark.parametrize("depth", [0, 1])
def test_churn_leaks_nothing(depth: int) -> None:
    """10,000 random orders, most of them rude."""
    chance = random.Random(7 + depth)
    driver = Driver(num_blocks=80, max_concurrent=6, depth=depth)
    requests = iter(workload(1, 10_000))
    for _ in range(10_000):
        action = chance.choice(("submit", "cancel", "pause", "resume", "finish", "step", "step"))
        alive = sorted(driver.engine.keys)
        if action == "step":
            driver.step()
        elif action == "submit" and len(alive) < 60:
            driver.submit(next(requests))
        elif alive and action == "finish":
            driver.engine.finish(chance.choice(alive), chance.randrange(4))
        elif alive and action != "submit":
            getattr(driver.engine, action)(chance.choice(alive))
    for key in driver.engine.keys:
        driver.engine.resume(key)
    driver.run()
    reasons = [end.finish_reason for end in driver.ends.values()]
    assert len(reasons) > 1000
    assert set(reasons) == {"stop", "length", "cancelled"}
    assert driver.engine.load().preemptions > 0
    assert not driver.engine.scheduler.queues


def test_a_request_that_can_never_fit_is_refused_with_both_numbers() -> None:
    engine = Driver(num_blocks=11).engine
    assert engine.check_fits(100, None, 1) == 60
    assert engine.check_fits(100, 60, 1) == 60
    with pytest.raises(PromptTooLong) as caught:
        engine.check_fits(100, 61, 1)
    assert caught.value.data == {"needed": 161, "limit": 160}
    with pytest.raises(PromptTooLong):
        engine.check_fits(160, None, 1)
    assert Driver().engine.check_fits(2000, None) == 48


def test_what_never_fits_ends_at_once_where_nobody_asked_before() -> None:
    driver = Driver(num_blocks=11)
    empty = request(2)
    empty.prompt = ()
    driver.submit(request(1, "x" * 200), empty, request(3))
    driver.run()
    assert isinstance(driver.error(1), PromptTooLong)
    assert isinstance(driver.error(2), InvalidRequest)
    assert driver.error(3) is None


def test_times_are_in_order() -> None:
    driver = Driver(max_concurrent=1)
    requests = [request(key, max_tokens=3) for key in range(2)]
    driver.submit(*requests)
    driver.run()
    first, second = requests
    for one in requests:
        assert 0 < one.arrived <= one.admitted <= one.first_token <= one.ended
    assert second.admitted >= first.ended


def test_the_load_counts_what_was_done() -> None:
    driver = Driver(Script(nan_for="poison"))
    driver.submit(request(1, "a" * 100, max_tokens=10, ignore_eos=True))
    driver.run()
    driver.submit(request(2, "a" * 100, max_tokens=10, ignore_eos=True), request(3, "poison"))
    driver.engine.step()
    load = driver.engine.load()
    assert (load.running, load.waiting) == (1, 0)
    driver.run()
    load = driver.engine.load()
    assert (load.requests_finished, load.requests_failed) == (2, 1)
    assert load.tokens_generated == 20
    assert load.prompt_tokens == 101 + 101 + 7
    assert load.cached_tokens == 96
    assert load.steps > 10
    assert load.tokens_per_second > 0


def test_stop_ends_what_runs_and_what_waits() -> None:
    driver = Driver(Script(step_ms=2), max_concurrent=2)
    driver.engine.start()
    for key in range(6):
        driver.submit(request(key, ignore_eos=True, max_tokens=1000))
    wait_for(lambda: driver.tokens)
    driver.engine.stop()
    driver.engine.stop()
    assert {end.finish_reason for end in driver.ends.values()} == {"cancelled"}
    assert len(driver.ends) == 6
    assert not any(thread.name == "engine" for thread in threading.enumerate())
    driver.check_empty()
    assert not driver.deaths


def test_what_comes_after_the_stop_ends_too() -> None:
    driver = Driver()
    driver.engine.start()
    driver.engine.stop()
    driver.submit(request(1, temperature=1.0, n=2))
    assert [driver.reason(1, answer) for answer in range(2)] == ["cancelled"] * 2
    driver.engine.cancel(1)
    driver.engine.resume(1)


def test_an_engine_that_never_started_stops_too() -> None:
    driver = Driver()
    driver.submit(request(1))
    driver.engine.stop()
    assert driver.reason(1) == "cancelled"


@pytest.mark.timeout(60)
def test_orders_from_many_threads_while_it_stops_lose_no_end() -> None:
    for round_number in range(20):
        driver = Driver(depth=round_number % 2)
        driver.engine.start()
        work = [[request(100 * number + one) for one in range(30)] for number in range(4)]
        threads = [threading.Thread(target=driver.submit, args=part) for part in work]
        for thread in threads:
            thread.start()
        time.sleep(0.001 * round_number)
        driver.engine.stop()
        for thread in threads:
            thread.join()
        assert len(driver.ends) == 120


def test_an_idle_engine_uses_no_time() -> None:
    driver = Driver()
    driver.submit(request(1))
    driver.engine.pause(1)
    driver.engine.start()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05
    driver.engine.resume(1)
    wait_for(lambda: driver.ends)
    driver.engine.stop()


@pytest.mark.parametrize("depth", [0, 1])
def test_a_step_that_does_not_come_back_is_seen(depth: int) -> None:
    driver = Driver(Script(step_ms=400), depth=depth)
    assert driver.engine.step_seconds() == 0
    driver.submit(request(1, max_tokens=2))
    driver.engine.start()
    wait_for(lambda: len(driver.tokens.get((1, 0), [])) == 1)
    wait_for(lambda: driver.engine.step_seconds() > 0.1)
    driver.engine.stop()
    assert driver.engine.step_seconds() == 0


def wait_for(condition: object, seconds: float = 10) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def test_a_prompt_that_fills_the_whole_cache_is_scored() -> None:
    driver = Driver(num_blocks=4)
    assert driver.engine.check_fits(48, 0, 1) == 0
    full = request(1, "x" * 47, prompt_logprobs=0, max_tokens=0)
    assert len(full.prompt) == 48
    driver.engine.submit(full)
    driver.run()
    assert len(full.prompt_logprobs) == 47
    driver.engine.submit(request(2, max_tokens=3))
    driver.run()
    assert (2, 0) in driver.ends
