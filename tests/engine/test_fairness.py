"""Nobody is passed over for long, and something always gets on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.driver import Driver, request, workload

LONGEST_WAIT = 64


def step_and_watch(driver: Driver) -> int:
    """One step; the largest number of steps that anything runnable has been passed over."""
    driver.step()
    return max((s.skipped for s in driver.engine.scheduler.running), default=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), max_batch_tokens=st.integers(16, 64), depth=st.integers(0, 1))
def test_no_running_sequence_waits_more_than_64_steps(
    seed: int, max_batch_tokens: int, depth: int
) -> None:
    driver = Driver(max_batch_tokens=max_batch_tokens, depth=depth)
    for one in workload(seed, 40):
        driver.engine.submit(one)
    while not driver.engine.idle:
        assert step_and_watch(driver) <= LONGEST_WAIT


def test_short_prompts_do_not_starve_longer_ones() -> None:
    driver = Driver(max_batch_tokens=16, max_concurrent=8, prefix_cache=False)
    for key in range(3):
        driver.engine.submit(request(key, "l" * 700, client="long"))
    waited = 0
    for key in range(3, 600):
        driver.engine.submit(request(key, "s" * 7, client="short", max_tokens=1))
        waited = max(waited, step_and_watch(driver))
    assert waited <= LONGEST_WAIT
    assert (0, 0) in driver.tokens
    driver.run()


def test_short_prompts_do_not_wait_for_a_long_one() -> None:
    driver = Driver(max_batch_tokens=64)
    driver.engine.submit(request(0, "l" * 1500))
    driver.step(2)
    driver.engine.submit(request(1, "short"))
    driver.step(1)
    assert (1, 0) in driver.tokens
    assert (0, 0) not in driver.tokens


def test_a_long_prompt_does_not_stop_running_streams() -> None:
    driver = Driver(max_batch_tokens=64)
    driver.engine.submit(request(0, "stream", max_tokens=100, ignore_eos=True))
    driver.step(3)
    driver.engine.submit(request(1, "l" * 1500))
    before = len(driver.tokens[0, 0])
    driver.step(20)
    assert len(driver.tokens[0, 0]) == before + 20
    assert (1, 0) not in driver.tokens


def test_clients_take_turns() -> None:
    driver = Driver(max_concurrent=1)
    for key in range(20):
        driver.engine.submit(request(key, client="greedy", max_tokens=2))
    driver.engine.submit(request(100, client="modest", max_tokens=2))
    driver.run()
    order = list(driver.ends)
    assert order.index((100, 0)) <= 2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(0, 1))
def test_with_few_blocks_every_hundred_steps_bring_a_token(seed: int, depth: int) -> None:
    driver = Driver(num_blocks=50, max_batch_tokens=32, depth=depth)
    for one in workload(seed, 30):
        driver.engine.submit(one)
    while not driver.engine.idle:
        before = driver.engine.load().tokens_generated
        driver.step(100)
        assert driver.engine.idle or driver.engine.load().tokens_generated > before
    driver.check_empty()


def test_a_paused_stream_gives_its_blocks_to_whoever_needs_them() -> None:
    driver = Driver(num_blocks=30)
    driver.engine.submit(request(0, "p" * 200, max_tokens=200, ignore_eos=True))
    driver.step(3)
    driver.engine.pause(0)
    driver.engine.submit(request(1, "q" * 300, max_tokens=100))
    for _ in range(130):
        driver.step()
    assert (1, 0) in driver.ends
    got = len(driver.tokens[0, 0])
    driver.engine.resume(0)
    driver.run()
    assert len(driver.tokens[0, 0]) == 200 > got
