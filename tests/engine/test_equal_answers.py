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
    "chunked_while_others_decode": {"max_batch_tokens": 16, "max_prefill_tokens": 200, "depth": 1},
    "a_quarter_of_the_blocks": {"num_blocks": 60},
    "a_quarter_of_the_blocks_one_step_behind": {"num_blocks": 60, "depth": 1},
    "few_slots": {"max_concurrent": 3},
    "everything": {"num_blocks": 60, "depth": 1, "max_batch_tokens": 20, "max_concurrent": 7},
}


def run_staggered(driver: Driver, requests: list, seed: int) -> None:
    """Submit at random moments between steps, and pause and resume some."""
    chance = random.Random(seed)
    for one in requests:
        driver.submit(one)
        driver.step(chance.randrange(6))
        if chance.random() < 0.3:
            driver.engine.pause(chance.randrange(one.key + 1))
        if chance.random() < 0.3:
            driver.engine.resume(chance.randrange(one.key + 1))
    for one in requests:
        driver.engine.resume(one.key)
    driver.run()


@pytest.mark.parametrize("way", WAYS)
def test_tokens_do_not_depend_on_company(way: str) -> None:
    expected = alone(workload(3, 40, most_tokens=120))
    driver = Driver(**WAYS[way])
    run_staggered(driver, workload(3, 40, most_tokens=120), seed=5)
    assert driver.tokens == expected
    if "quarter" in way:
        assert driver.engine.load().preemptions > 0
    if way != "few_slots":
        assert driver.runner.widest > 5


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
        driver.submit(one := request(key, prompt))
        driver.run()
        assert one.cached_tokens == (0 if key == 1 else (len(prompt) // 16) * 16)
    assert driver.text(1) == driver.text(2)


def test_the_next_turn_of_a_conversation_finds_the_answer_too() -> None:
    driver = Driver()
    driver.submit(request(1, "x" * 63, max_tokens=40, ignore_eos=True))
    driver.run()
    again = request(2)
    again.prompt = (*request(1, "x" * 63).prompt, *driver.tokens[1, 0], ord("?"))
    driver.submit(again)
    driver.run()
    assert again.cached_tokens == (64 + 39) // 16 * 16


def test_another_client_reads_nothing_from_the_cache() -> None:
    driver = Driver()
    for key, client in enumerate("ab"):
        driver.submit(one := request(key, "a secret prompt " * 20, client=client))
        driver.run()
    assert one.cached_tokens == 0


def test_a_prompt_that_is_a_whole_number_of_cached_blocks_still_answers() -> None:
    driver = Driver()
    prompt = "x" * 63  # a BOS makes it four blocks exactly
    for key in (1, 2):
        driver.submit(one := request(key, prompt))
        driver.run()
    assert one.cached_tokens == 48
    assert driver.text(1) == driver.text(2)


@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("scored", [{}, {"prompt_logprobs": 0}])
def test_answers_of_one_prompt_share_its_blocks(
    prefix_cache: bool, depth: int, scored: dict[str, int]
) -> None:
    driver = Driver(prefix_cache=prefix_cache, depth=depth)
    prompt = "w" * 160
    driver.submit(request(1, prompt, temperature=1.0, n=8, max_tokens=4, ignore_eos=True, **scored))
    while (1, 7) not in driver.tokens:
        driver.step()
        used = driver.num_blocks - 1 - driver.engine.load().free_blocks
        assert used <= 10 + 8 * 2
    driver.run()
    assert driver.runner.tokens < 161 + 8 * (16 + 4 + 1)
    assert len({driver.text(1, answer) for answer in range(8)}) > 1


def test_other_answers_do_not_wait_behind_those_that_share_a_prompt() -> None:
    driver = Driver(max_batch_tokens=64)
    driver.submit(request(1, "w" * 1000, temperature=1.0, n=8), request(2, "short"))
    driver.step(2)
    assert (2, 0) in driver.tokens
    assert (1, 0) not in driver.tokens


@pytest.mark.parametrize("depth", [0, 1])
def test_scores_come_once_for_every_prompt_token_even_preempted(depth: int) -> None:
    driver = Driver(num_blocks=30, max_batch_tokens=32, depth=depth)
    scored = request(1, "s" * 300, prompt_logprobs=1, max_tokens=60, ignore_eos=True)
    driver.submit(request(0, "first " * 10, max_tokens=200, ignore_eos=True), scored)
    driver.run()
    assert driver.engine.load().preemptions > 0
    assert [score.token_id for score in scored.prompt_logprobs] == list(scored.prompt[1:])
    before = Driver(prefix_cache=False)
    before.submit(again := request(1, "s" * 300, prompt_logprobs=1, max_tokens=60, ignore_eos=True))
    before.run()
    assert again.prompt_logprobs == scored.prompt_logprobs


def test_a_cached_prompt_is_scored_all_the_same() -> None:
    driver = Driver()
    driver.submit(request(1, "s" * 300))
    driver.run()
    driver.submit(scored := request(2, "s" * 300, prompt_logprobs=0))
    driver.run()
    assert scored.cached_tokens == 0
    assert [score.token_id for score in scored.prompt_logprobs] == list(scored.prompt[1:])


def test_prompts_are_scored_in_small_chunks() -> None:
    driver = Driver(max_batch_tokens=256)
    driver.submit(request(1, "s" * 255, prompt_logprobs=0, max_tokens=1))
    driver.run()
    assert driver.engine.load().steps == 256 // 64


@pytest.mark.parametrize("depth", [0, 1])
def test_scoring_alone_generates_nothing(depth: int) -> None:
    driver = Driver(depth=depth)
    driver.submit(scored := request(1, "score me", prompt_logprobs=0, max_tokens=0))
    driver.run()
    assert driver.reason(1) == "length"
    assert driver.text(1) == ""
    assert len(scored.prompt_logprobs) == len(scored.prompt) - 1


def test_a_prompt_that_fills_the_pool_can_be_scored() -> None:
    driver = Driver(num_blocks=11)
    assert driver.engine.check_fits(160, 0) == 0
    driver.submit(scored := request(1, "x" * 159, prompt_logprobs=0, max_tokens=0))
    driver.run()
    assert len(scored.prompt_logprobs) == 159


def test_a_prompt_answered_with_one_token_is_cached_too() -> None:
    driver = Driver()
    for key in (1, 2):
        one = request(key, "the same prompt " * 10, max_tokens=1)
        driver.submit(one)
        driver.run()
    assert one.cached_tokens == 160
