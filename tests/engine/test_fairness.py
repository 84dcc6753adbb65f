"""Nobody is passed over for long, and something always gets on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmkernel.worker.step import GraphRoom, StepBatch
from tests.engine.driver import BLOCK_SIZE, Driver, request, workload

LONGEST_WAIT = 64


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_batch_tokens=st.integers(2, 64),
    times=st.sampled_from([1, 4]),
    depth=st.integers(0, 1),
    num_blocks=st.sampled_from([50, 100, 2000]),
    graph_room=st.sampled_from([None, GraphRoom(16, 2000), GraphRoom(64, 10**6)]),
)
def test_nothing_that_can_run_waits_more_than_64_steps(
    seed: int,
    max_batch_tokens: int,
    times: int,
    depth: int,
    num_blocks: int,
    graph_room: GraphRoom | None,
) -> None:
    driver = Driver(
        max_batch_tokens=max_batch_tokens,
        max_prefill_tokens=times * max_batch_tokens,
        depth=depth,
        num_blocks=num_blocks,
        graph_room=graph_room,
    )
    driver.submit(*workload(seed, 30))
    while not driver.engine.idle:
        driver.step()
        assert driver.waited() <= LONGEST_WAIT
    assert all(end.error is None for end in driver.ends.values())
    driver.check_empty()


def test_short_prompts_do_not_starve_longer_ones() -> None:
    driver = Driver(max_batch_tokens=16, max_concurrent=8, prefix_cache=False)
    for key in range(3):
        driver.submit(request(key, "l" * 700, client="long"))
    waited = 0
    for key in range(3, 600):
        driver.submit(request(key, "s" * 7, client="short", max_tokens=1))
        driver.step()
        waited = max(waited, driver.waited())
    assert waited <= LONGEST_WAIT
    assert (0, 0) in driver.tokens
    driver.run()


def test_a_prompt_that_was_begun_has_its_blocks_although_others_grow() -> None:
    driver = Driver(num_blocks=61, max_batch_tokens=16, max_concurrent=8, prefix_cache=False)
    driver.submit(request(0, "l" * 480, client="long"))
    driver.step(2)
    for key in range(1, 6):
        driver.submit(request(key, "s" * 15, client="short", max_tokens=400, ignore_eos=True))
    for _ in range(1000):
        driver.step()
        assert driver.waited() <= LONGEST_WAIT
        if (0, 0) in driver.tokens:
            break
    assert (0, 0) in driver.tokens, "those who came later took its blocks"
    assert driver.engine.load().steps < 100
    driver.run()


def test_short_prompts_do_not_wait_for_a_long_one() -> None:
    driver = Driver(max_batch_tokens=64)
    driver.submit(request(0, "l" * 1500))
    driver.step(2)
    driver.submit(request(1, "short"))
    driver.step(1)
    assert (1, 0) in driver.tokens
    assert (0, 0) not in driver.tokens


def test_a_long_prompt_does_not_stop_running_streams() -> None:
    driver = Driver(max_batch_tokens=64)
    driver.submit(request(0, "stream", max_tokens=100, ignore_eos=True))
    driver.step(3)
    driver.submit(request(1, "l" * 1500))
    before = len(driver.tokens[0, 0])
    driver.step(20)
    assert len(driver.tokens[0, 0]) == before + 20
    assert (1, 0) not in driver.tokens


def test_steps_are_larger_while_nobody_decodes() -> None:
    driver = Driver(max_batch_tokens=64, max_prefill_tokens=512, prefix_cache=False)
    driver.submit(request(0, "l" * 1500, max_tokens=200, ignore_eos=True))
    driver.step(3)
    assert len(driver.tokens[0, 0]) == 1
    driver.submit(request(1, "k" * 1500))
    driver.step(23)
    assert (1, 0) not in driver.tokens, "64 tokens a step beside a stream"
    driver.step()
    assert (1, 0) in driver.tokens
    assert len(driver.tokens[0, 0]) == 25


def test_short_prompts_are_cut_to_steps_that_are_graphs() -> None:
    driver = Driver(graph_room=GraphRoom(64, 10**6), max_prefill_tokens=512, prefix_cache=False)
    prompts: list[list[int]] = []
    launch = driver.runner.launch

    def watched(batch: StepBatch) -> object:
        prompts.append([row.count for row in batch.rows])
        return launch(batch)

    driver.runner.launch = watched  # type: ignore[method-assign]
    driver.submit(request(0, "a" * 149, max_tokens=200, ignore_eos=True))  # 150 with its beginning
    driver.step(4)
    assert prompts == [[64], [64], [22], [1]]
    driver.submit(request(1, "b" * 149, max_tokens=200, ignore_eos=True))
    driver.step(4)
    assert prompts[4:] == [[1, 63], [1, 63], [1, 24], [1, 1]], "beside a stream the rest of it"
    driver.submit(request(2, "c" * 299))
    driver.step(2)
    assert prompts[8:] == [[1, 1, 256], [1, 1, 44]], "by hand where graphs would be many"


def test_prompts_that_read_much_are_not_cut_to_graphs() -> None:
    driver = Driver(graph_room=GraphRoom(64, 64 * 100), max_prefill_tokens=512)
    driver.submit(request(0, "a" * 149, max_tokens=200, ignore_eos=True))
    driver.step(1)
    assert (0, 0) in driver.tokens


def test_a_stream_that_is_not_read_makes_no_step_smaller() -> None:
    driver = Driver(max_batch_tokens=64, max_prefill_tokens=512, prefix_cache=False)
    driver.submit(request(0, "stream", max_tokens=200, ignore_eos=True))
    driver.step(2)
    driver.engine.pause(0)
    driver.submit(request(1, "k" * 1500))
    driver.step(3)
    assert (1, 0) in driver.tokens
    driver.engine.resume(0)
    driver.run()


def test_clients_take_turns() -> None:
    driver = Driver(max_concurrent=1)
    for key in range(20):
        driver.submit(request(key, client="greedy", max_tokens=2))
    driver.submit(request(100, client="modest", max_tokens=2))
    driver.submit(request(101, client="modest", max_tokens=2))
    driver.run()
    order = [key for key, _ in driver.ends]
    assert order[:5] == [0, 100, 1, 101, 2]


def test_requests_of_one_client_are_served_as_they_came() -> None:
    driver = Driver(max_concurrent=1)
    for key in range(10):
        driver.submit(request(key, max_tokens=2))
    driver.run()
    assert [key for key, _ in driver.ends] == list(range(10))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), depth=st.integers(0, 1))
def test_with_a_quarter_of_the_blocks_every_hundred_steps_bring_a_token(
    seed: int, depth: int
) -> None:
    requests = workload(seed, 30, most_tokens=150)
    wanted = sum(-(-s.longest // BLOCK_SIZE) for s in _sequences(requests))
    largest = max(-(-s.longest // BLOCK_SIZE) for s in _sequences(requests))
    driver = Driver(num_blocks=max(wanted // 4, largest) + 1, max_batch_tokens=32, depth=depth)
    driver.submit(*workload(seed, 30, most_tokens=150))
    while not driver.engine.idle:
        before = driver.engine.load()
        driver.step(100)
        after = driver.engine.load()
        assert driver.engine.idle or after.tokens_generated > before.tokens_generated
    driver.check_empty()


def _sequences(requests: list) -> list:
    driver = Driver()
    driver.submit(*requests)
    driver.engine.step()
    return [sequence for one in requests for sequence in one.sequences]


def test_the_oldest_is_never_preempted_by_others() -> None:
    driver = Driver(num_blocks=12)
    for key in range(3):
        driver.submit(request(key, "p" * 31, max_tokens=100, ignore_eos=True))
    for steps in range(1, 101):
        driver.step()
        assert len(driver.tokens[0, 0]) == steps
    driver.run()
    assert driver.engine.load().preemptions > 0
    assert [key for key, _ in driver.ends] == [0, 1, 2]


def test_whoever_was_preempted_comes_back_before_those_who_wait() -> None:
    driver = Driver(num_blocks=16, prefix_cache=False)
    for key in range(8):
        driver.submit(request(key, "p" * 31, max_tokens=60, ignore_eos=True, client=str(key)))
    driver.run()
    assert driver.engine.load().preemptions > 0
    assert [key for key, _ in driver.ends] == list(range(8))


def test_admission_leaves_room_for_those_who_run() -> None:
    """Otherwise each newcomer takes the last blocks, is preempted at once and computed again."""
    driver = Driver(num_blocks=41, prefix_cache=False)
    for key in range(30):
        driver.submit(request(key, "p" * 31, max_tokens=30, ignore_eos=True))
    driver.run()
    assert driver.engine.load().preemptions < 10


def test_a_paused_stream_gives_its_blocks_to_whoever_needs_them() -> None:
    driver = Driver(num_blocks=30)
    driver.submit(request(0, "p" * 200, max_tokens=200, ignore_eos=True))
    driver.step(3)
    driver.engine.pause(0)
    driver.submit(request(1, "q" * 300, max_tokens=100))
    driver.step(130)
    assert (1, 0) in driver.ends
    got = len(driver.tokens[0, 0])
    driver.engine.resume(0)
    driver.run()
    assert len(driver.tokens[0, 0]) == 200 > got


def test_a_paused_stream_keeps_its_blocks_while_nobody_needs_them() -> None:
    driver = Driver()
    driver.submit(request(0, "p" * 200, max_tokens=50, ignore_eos=True))
    driver.step(3)
    driver.engine.pause(0)
    driver.submit(request(1, "q" * 300))
    driver.step(60)
    assert len(driver.tokens[0, 0]) == 3
    assert driver.engine.load().running == 1
    driver.engine.resume(0)
    driver.run()
    assert driver.engine.load().preemptions == 0


def test_paused_streams_give_their_slots_to_whoever_needs_them() -> None:
    driver = Driver(max_concurrent=2)
    for key in range(2):
        driver.submit(request(key, max_tokens=200, ignore_eos=True))
    driver.step(3)
    for key in range(2):
        driver.engine.pause(key)
    driver.submit(request(2))
    driver.step(40)
    assert (2, 0) in driver.ends
    for key in range(2):
        driver.engine.resume(key)
    driver.run()
    assert len(driver.tokens[0, 0]) == len(driver.tokens[1, 0]) == 200


def test_what_is_paused_before_it_began_takes_nothing() -> None:
    driver = Driver()
    driver.submit(request(0), request(1))
    driver.engine.pause(0)
    driver.step(40)
    assert (1, 0) in driver.ends
    assert driver.engine.load().waiting == 1
    assert driver.engine.load().free_blocks == driver.num_blocks - 1
    driver.engine.resume(0)
    driver.run()


def test_paused_streams_keep_neither_slots_nor_turns_from_others() -> None:
    driver = Driver(max_concurrent=4)
    for key in range(40):
        driver.engine.submit(request(key, "p" * 100, client="silent", max_tokens=50))
        driver.engine.pause(key)
        driver.step(key % 2)
    driver.engine.submit(request(99, "honest", client="honest", max_tokens=5))
    driver.step(12)
    assert (99, 0) in driver.ends
    for key in range(40):
        driver.engine.resume(key)
    driver.run()
    assert len(driver.ends) == 41


def test_streams_paused_in_their_slots_make_room() -> None:
    driver = Driver(max_concurrent=4)
    for key in range(4):
        driver.engine.submit(request(key, "p" * 100, client="silent", max_tokens=50))
    driver.step(3)
    for key in range(4):
        driver.engine.pause(key)
    driver.engine.submit(request(99, "honest", client="honest", max_tokens=5))
    driver.step(12)
    assert (99, 0) in driver.ends
    for key in range(4):
        driver.engine.resume(key)
    driver.run()
