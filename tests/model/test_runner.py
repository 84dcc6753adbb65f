from __future__ import annotations

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.errors import DeviceOutOfMemory, EngineDied, NotEnoughMemory
from llmkernel.worker.sequence import NO_TOKEN
from llmkernel.worker.step import Row, StepBatch
from tests.model.driving import BLOCK, Driver, make_prompt, make_runner

TOKENS = 10
POISON = 5
"""An id whose embedding is NaN in the poisoned model; no other prompt holds it."""


@pytest.fixture(scope="module")
def llama():
    return tiny_models.build("llama")


def expected(model, prompt, count=TOKENS):
    return tiny_models.generate(model, prompt, count)[0]


def clean_prompt(length, number=0):
    return [POISON + 1 if token == POISON else token for token in make_prompt(length, number)]


def poisoned(name="llama"):
    model = tiny_models.build(name)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = torch.nan
    return model


@pytest.mark.parametrize("depth", [0, 1])
def test_a_row_takes_its_newest_token_from_the_device(llama, depth):
    driver = Driver(make_runner(), depth=depth)
    sequence = driver.add(make_prompt(20), TOKENS)
    seen_in_flight = False
    while driver.running:
        driver.step()
        seen_in_flight |= sequence.in_flight > 0
    assert seen_in_flight == bool(depth)
    assert sequence.output_ids == expected(llama, make_prompt(20))


def test_many_steps_may_be_on_their_way(llama):
    driver = Driver(make_runner(copies=5), depth=4)
    sequences = [driver.add(make_prompt(length, length), TOKENS) for length in (3, 30)]
    driver.run()
    for sequence in sequences:
        assert sequence.output_ids == expected(llama, list(sequence.request.prompt))


def test_a_runner_that_is_always_waited_for_needs_no_newest_tokens(llama):
    driver = Driver(make_runner(copies=1), chunk=8)
    sequences = [driver.add(make_prompt(length, length), TOKENS) for length in (3, 30, 9)]
    driver.run()
    for sequence in sequences:
        assert sequence.output_ids == expected(llama, list(sequence.request.prompt))


def test_a_chunk_of_a_prompt_gives_no_token():
    driver = Driver(make_runner(), chunk=8)
    driver.add(make_prompt(20), 1)
    driver.run()
    assert [result.sampled[0] is None for _, result in driver.results] == [True, True, False]


def test_a_slot_serves_one_sequence_after_another(llama):
    runner = make_runner()
    for number in range(3):
        driver = Driver(runner)
        sequence = driver.add(make_prompt(18, number), TOKENS)
        driver.run()
        assert sequence.output_ids == expected(llama, make_prompt(18, number))


def test_a_sequence_that_was_put_off_recomputes_in_other_blocks(llama):
    driver = Driver(make_runner())
    sequence = driver.add(make_prompt(20), TOKENS)
    other = driver.add(make_prompt(33, 1), TOKENS)
    for _ in range(4):
        driver.step()
    driver.runner.release(sequence.slot)
    sequence.computed = 0
    sequence.slot = 7
    sequence.blocks = [190 + i for i in range(len(sequence.blocks))]
    driver.run()
    assert sequence.output_ids == expected(llama, make_prompt(20))
    assert other.output_ids == expected(llama, make_prompt(33, 1))


def test_a_prefix_in_shared_blocks_is_read_and_not_computed(llama):
    driver = Driver(make_runner())
    first = driver.add(make_prompt(40), TOKENS)
    driver.run()
    again = driver.add(make_prompt(40), TOKENS)
    again.blocks[:2] = first.blocks[:2]
    again.computed = 2 * BLOCK
    driver.run()
    assert again.output_ids == first.output_ids == expected(llama, make_prompt(40))


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt-oss"])
@pytest.mark.parametrize("chunk", [1000, 8])
def test_a_row_of_nan_fails_alone_and_leaves_nothing_behind(name, chunk):
    bad_prompt = [*clean_prompt(19), POISON, *clean_prompt(3)]
    driver = Driver(make_runner(loaded={"model": poisoned(name)}), chunk=chunk)
    good = driver.add(clean_prompt(30, 1), TOKENS)
    bad = driver.add(bad_prompt, TOKENS)
    other = driver.add(clean_prompt(12, 2), TOKENS)
    driver.run()
    assert set(bad.output_ids) == {NO_TOKEN}
    for sequence in (good, other):
        reference, _ = tiny_models.generate(poisoned(name), list(sequence.request.prompt), TOKENS)
        assert sequence.output_ids == reference
    heir = driver.add(clean_prompt(5, 3), TOKENS)  # writes over a part of the bad blocks only
    heir.blocks = list(bad.blocks)
    driver.run()
    reference, _ = tiny_models.generate(poisoned(name), clean_prompt(5, 3), TOKENS)
    assert heir.output_ids == reference


def test_prompt_tokens_are_scored_wherever_the_chunks_end(llama, monkeypatch):
    monkeypatch.setattr("llmkernel.worker.prompt_scores.SCORED_AT_ONCE", 3)
    prompt = make_prompt(21)
    with torch.inference_mode():
        logits = llama(torch.tensor([prompt])).logits[0].log_softmax(-1)
    for chunk in (1000, 8, 1):
        driver = Driver(make_runner(), chunk=chunk)
        driver.add(make_prompt(9, 1), TOKENS)
        asking = driver.add(prompt, 2, prompt_logprobs=2)
        driver.run()
        scored = []
        for batch, result in driver.results:
            for row, entries in zip(batch.rows, result.prompt_logprobs, strict=True):
                assert row.sequence is asking or not entries
                scored += entries
        assert [entry.token_id for entry in scored] == prompt[1:]
        for position, entry in enumerate(scored):
            best = logits[position].topk(2)
            assert entry.logprob == pytest.approx(
                logits[position, prompt[position + 1]].item(), abs=1e-4
            )
            assert [candidate.token_id for candidate in entry.top] == best.indices.tolist()


def test_a_step_that_raises_leaves_the_runner_usable(llama, monkeypatch):
    runner = make_runner()
    driver = Driver(runner)
    survivor = driver.add(make_prompt(20), TOKENS)
    for _ in range(3):
        driver.step()

    lost = driver.add(make_prompt(25, 1), TOKENS)
    lost.token_ids[7] = tiny_models.VOCABULARY + 1  # no such row of the embedding
    driver.running.remove(survivor)
    with pytest.raises(IndexError):
        driver.step()
    runner.release(lost.slot)
    driver.running = [survivor]
    driver.run()
    assert survivor.output_ids == expected(llama, make_prompt(20))
    heir = driver.add(make_prompt(25, 2), TOKENS)
    heir.slot, heir.blocks = lost.slot, lost.blocks
    driver.run()
    assert heir.output_ids == expected(llama, make_prompt(25, 2))


def test_a_step_larger_than_the_buffers_is_no_step():
    runner = make_runner(max_batch_tokens=16, max_concurrent=2)
    driver = Driver(runner)
    driver.add(make_prompt(60), 2)
    with pytest.raises(ValueError, match="larger than 18"):
        driver.step()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceOutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), DeviceOutOfMemory),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), EngineDied),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_what_the_device_says_is_told_in_our_words(raised, seen):
    runner = make_runner()
    driver = Driver(runner)
    driver.add(make_prompt(4), 2)

    def fail(*_):
        raise raised

    handle = runner._loaded.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(seen) as error:
        driver.step()
    assert type(error.value) is seen
    handle.remove()
    driver.run()


def test_too_many_blocks_are_a_failed_start():
    with pytest.raises(NotEnoughMemory, match="kv_cache"):
        make_runner(num_blocks=2**50 // (BLOCK * 1024))


def test_a_step_that_does_not_fit_while_warming_up_is_a_failed_start():
    runner = make_runner()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    runner._loaded.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(NotEnoughMemory, match="max_batch_tokens"):
        runner.warm_up()


def test_the_largest_step_that_is_tried_is_one_that_fits():
    runner = make_runner(max_batch_tokens=400, loaded={"context_length": 100})
    seen = []

    def fail(_module, inputs, _keywords):
        seen.append(inputs[0].shape[1])
        if seen[-1] > 120:
            raise torch.OutOfMemoryError("CUDA out of memory")

    runner._loaded.model.model.layers[1].register_forward_pre_hook(fail, with_kwargs=True)
    assert runner.largest_prefill(least=30) == 100
    assert seen == [400, 201, 100], "several rows, since none is longer than the context"
    with pytest.raises(NotEnoughMemory, match="max_batch_tokens"):
        runner.largest_prefill(least=130)
    assert seen[3:] == [400, 201, 130]


def test_the_largest_step_that_is_tried_has_blocks_for_its_sequences():
    runner = make_runner(num_blocks=5, max_batch_tokens=400)
    seen = []

    def note(_module, inputs, _keywords):
        seen.append(inputs[0].shape[1])

    runner._loaded.model.model.layers[1].register_forward_pre_hook(note, with_kwargs=True)
    assert runner.largest_prefill(least=16) == 400
    assert 0 < seen[0] <= 400 + 8


def test_warming_up_leaves_no_trace(llama):
    runner = make_runner()
    runner.warm_up()
    driver = Driver(runner)
    sequence = driver.add(make_prompt(20), TOKENS)
    driver.run()
    assert sequence.output_ids == expected(llama, make_prompt(20))


def test_the_whole_context_can_be_used():
    runner = make_runner("gpt2", num_blocks=40, max_batch_tokens=tiny_models.CONTEXT)
    driver = Driver(runner, depth=1)
    prompt = make_prompt(tiny_models.CONTEXT - 4)
    sequence = driver.add(prompt, 4)
    driver.run()
    assert sequence.output_ids == tiny_models.generate(tiny_models.build("gpt2"), prompt, 4)[0]


def test_one_wasted_step_at_the_end_of_the_context_is_harmless():
    # a host one step behind launches a row once more before it knows that it has ended
    runner = make_runner("gpt2", num_blocks=40, max_batch_tokens=tiny_models.CONTEXT)
    driver = Driver(runner)
    sequence = driver.add(make_prompt(tiny_models.CONTEXT - 1), 1)
    driver.run()
    batch = StepBatch([Row(sequence, tiny_models.CONTEXT - 1, 1, samples=True)])
    runner.collect(runner.launch(batch))
