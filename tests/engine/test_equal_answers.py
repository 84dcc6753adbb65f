"""The same tokens alone and in company, however the steps are cut."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.driver import Driver, alone, request, workload

WAYS = {
    "together": {},
    "one_step_behind": {"depth": 1},
    "no_prefix_cache": {"prefix_cache": False},
    "chunked": {"max_batch_tokens": 16},
    "a_quarter_of_the_blocks": {"num_blocks": 60},
    "a_quarter_of_the_blocks_one_step_behind": {"num_blocks": 60, "depth": 1},
    "few_slots": {"max_concurrent": 3},
    "everything": {"num_blocks": 60, "depth": 1, "max_batch_tokens": 20, "max_concurrent": 7},
}


def run_staggered(driver: Driver, requests: list, seed: int) -> None:
    """Submit at random moments between steps."""
    chance = random.Random(seed)
    for one in requests:
        driver.engine.submit(one)
        driver.step(chance.randrange(6))
    driver.run()


@pytest.mark.parametrize("way", WAYS)
def test_tokens_do_not_depend_on_company(way: str) -> None:
    expected = alone(workload(3, 40))
    driver = Driver(**WAYS[way])
    run_staggered(driver, workload(3, 40), seed=5)
    assert driver.tokens == expected
    if "quarter" in way:
        assert driver.engine.load().preemptions > 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_blocks=st.integers(50, 200),
    max_batch_tokens=st.integers(16, 300),
    max_concurrent=st.integers(1, 20),
    depth=st.integers(0, 1),
    prefix_cache=st.booleans(),
)
def test_any_configuration_gives_the_same_tokens(seed: int, **configuration: int) -> None:
    expected = alone(workload(seed, 12))
    driver = Driver(**configuration)
    run_staggered(driver, workload(seed, 12), seed)
    assert driver.tokens == expected


def test_a_second_identical_prompt_is_read_from_the_cache() -> None:
    driver = Driver()
    prompt = "the same long prompt " * 20
    for key in (1, 2):
        driver.engine.submit(one := request(key, prompt))
        driver.run()
        assert one.cached_tokens == (0 if key == 1 else (len(prompt) // 16) * 16)
    assert driver.text(1) == driver.text(2)


def test_a_prompt_that_is_a_whole_number_of_cached_blocks_still_answers() -> None:
    driver = Driver()
    prompt = "x" * 63  # a BOS makes it four blocks exactly
    for key in (1, 2):
        driver.engine.submit(one := request(key, prompt))
        driver.run()
    assert one.cached_tokens == 48
    assert driver.text(1) == driver.text(2)


def test_answers_of_one_prompt_share_its_blocks_without_the_cache_too() -> None:
    driver = Driver(prefix_cache=False)
    prompt = "w" * 160
    driver.engine.submit(request(1, prompt, temperature=1.0, n=8, max_tokens=4))
    driver.step(4)
    used = driver.num_blocks - 1 - driver.engine.load().free_blocks
    assert used <= 10 + 8 * 2
    driver.run()
    assert len({driver.text(1, answer) for answer in range(8)}) > 1


def test_scores_come_once_for_every_prompt_token_even_preempted() -> None:
    driver = Driver(num_blocks=30, max_batch_tokens=32)
    scored = request(1, "s" * 300, prompt_logprobs=1, max_tokens=60)
    driver.engine.submit(request(0, "first " * 10, max_tokens=100))
    driver.engine.submit(scored)
    driver.run()
    assert [score.token_id for score in scored.prompt_logprobs] == list(scored.prompt[1:])


def test_scoring_alone_generates_nothing() -> None:
    driver = Driver()
    scored = request(1, "score me", prompt_logprobs=0, max_tokens=0)
    driver.engine.submit(scored)
    driver.run()
    assert driver.reason(1) == "length"
    assert driver.text(1) == ""
    assert len(scored.prompt_logprobs) == len(scored.prompt) - 1
