"""What CUDA graphs stand on, without a GPU: buckets, and steps that are padded to one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.worker.graphs import ROOM, Bucket, Decoded, StepGraphs, buckets
from llmkernel.worker.step import StepBatch
from tests.model.driving import Driver, make_prompt, make_runner

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("most", [1, 2, 3, 31, 32, 33, 64, 100, 256])
def test_every_number_of_rows_has_a_bucket_that_is_not_much_larger(most):
    sizes = buckets(most)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most
    for rows in range(1, most + 1):
        bucket = next(size for size in sizes if size >= rows)
        assert bucket - rows < max(rows, 16)


def steps(runner, **settings):
    """Decode batches of three sequences of different lengths."""
    driver, batches = Driver(runner, **settings), []
    launch = runner.launch
    runner.launch = lambda batch: batches.append(batch) or launch(batch)
    for length in (5, 40, 70):
        driver.add(make_prompt(length, length), 40)
    for _ in range(4):
        driver.step()
    return batches


def test_steps_of_few_tokens_have_a_graph():
    graphs = StepGraphs(lambda tensors: None, lambda bucket: None, max_rows=4)
    *_, decode = steps(make_runner())
    assert graphs.bucket(decode) == Bucket(4, apart=False)
    assert graphs.bucket(StepBatch(decode.rows[:1])) == Bucket(1, apart=False)
    assert StepGraphs(lambda tensors: None, lambda bucket: None, 2).bucket(decode) is None
    large = steps(make_runner())[0]
    assert large.tokens == 5 + 40 + 70 > ROOM.tokens
    assert graphs.bucket(large) is None
    mixed = steps(make_runner(), chunk=15)[1]  # 15 of 40, 15 of 70, and a token of 5
    assert [row.count for row in mixed.rows] == [1, 15, 15]
    assert graphs.bucket(mixed) == Bucket(32, apart=False)


def test_a_step_that_reads_too_much_has_no_graph():
    graphs = StepGraphs(lambda tensors: None, lambda bucket: None, max_rows=4)
    _, mixed, *_ = steps(make_runner(), chunk=15)
    shared = Bucket(32, apart=False)
    for start, bucket in ((ROOM.read // 30 - 15, shared), (ROOM.read // 30 + 1, None)):
        rows = [replace(row, start=start if row.count > 1 else 0) for row in mixed.rows]
        assert graphs.bucket(StepBatch(rows)) == bucket


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_padding_changes_nothing_for_the_rows(name):
    runner = make_runner(name)
    *_, batch = steps(runner)
    with torch.inference_mode():
        plain = runner._inputs.fill(batch)
        expected = runner._head(runner._forward(plain).index_select(0, plain.sampled))
        for bucket in (3, 4, 8):
            runner._inputs.fill(batch, bucket)
            runner._newest._ids.fill_(-7)
            decoded = runner._step_of_rows(runner._inputs.padded(bucket))
            assert decoded.logits.isfinite().all(), "padding must not make numbers that spread"
            torch.testing.assert_close(decoded.logits[:3], expected, rtol=1e-4, atol=1e-4)
            launched = runner._sampler.sample(decoded.logits[:3], batch.rows)
            assert decoded.greedy[:3].tolist() == launched.tokens.tolist()
            newest = runner._newest._ids.tolist()
            assert [newest[row.sequence.slot] for row in batch.rows] == launched.tokens.tolist()
            assert newest[3:8] == [-7] * 5, "padding is nobody's"


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_tokens_of_prompts_are_rows_of_a_graph(name):
    runner = make_runner(name)
    steps(runner, chunk=15)
    batches = steps(runner, chunk=15)
    seen = 0
    with torch.inference_mode():
        for batch in batches[1:]:
            count = sum(row.samples for row in batch.rows)
            seen += any(row.count > 1 for row in batch.rows)
            plain = runner._inputs.fill(batch)
            hidden = runner._forward(plain)
            expected = runner._head(hidden.index_select(0, plain.sampled))
            filled = runner._inputs.fill(batch, 64)
            assert filled.sampled.tolist() == plain.sampled.tolist()
            runner._newest._ids.fill_(-7)
            decoded = runner._step_of_rows(runner._inputs.padded(64))
            torch.testing.assert_close(decoded.hidden[: batch.tokens], hidden, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                decoded.logits[filled.sampled], expected, rtol=1e-4, atol=1e-4
            )
            sampling = {row.sequence.slot for row in batch.rows if row.samples}
            changed = {
                slot for slot, token in enumerate(runner._newest._ids.tolist()[:8]) if token != -7
            }
            assert len(sampling) == count
            assert changed == sampling, "only what is sampled becomes a newest token"
    assert seen == 3


class Launched(StepGraphs):
    """Graphs whose steps are launched each time, where nothing can be captured."""

    runs = 0

    def run(self, bucket):
        decoded = super().run(bucket)
        # on a GPU they are on their way to the host before they are overwritten
        return decoded and Decoded(*(tensor.clone() for tensor in decoded))

    def _capture(self, tensors):
        # as in a capture, nothing is computed yet
        rows = len(tensors.ids)
        decoded = Decoded(
            torch.empty(rows, 64),
            torch.empty(rows, tiny_models.VOCABULARY),
            torch.empty(rows, dtype=torch.int64),
        )

        def replay():
            self.runs += 1
            fresh = self._padded(rows)  # the plain attention's plans are of one step
            for place, value in zip(decoded, self._compute(fresh), strict=True):
                place.copy_(value)

        return SimpleNamespace(replay=replay), decoded


ASKED = (
    {},
    {"temperature": 1.0, "seed": 3},
    {"repetition_penalty": 1.5},
    {},
    {"temperature": 0.7, "top_p": 0.8, "seed": 4},
    {"logprobs": 2},
)


def test_a_step_without_memory_for_its_graph_is_computed_once():
    class Full(Launched):
        def _capture(self, tensors):
            raise torch.OutOfMemoryError

    answers = []
    for graphs in (StepGraphs, Full):
        runner = make_runner("llama")
        if graphs is Full:
            runner._graphs = Full(runner._step_of_rows, runner._inputs.padded, 8)
        driver = Driver(runner, depth=1)
        sequences = [driver.add(make_prompt(5 + number, number), 6) for number in range(3)]
        driver.run()
        answers.append([list(sequence.output_ids) for sequence in sequences])
    assert answers[0] == answers[1]


def test_without_memory_for_their_graphs_prompts_are_not_cut_to_them():
    runner = make_runner("llama")

    class Full(Launched):
        def _capture(self, tensors):
            raise torch.OutOfMemoryError

    graphs = Full(runner._step_of_rows, runner._inputs.padded, 8)
    assert graphs.room == ROOM
    with torch.inference_mode():
        runner._inputs.fill(steps(runner, chunk=15)[1], 16)
        graphs.run(Bucket(16, apart=False))
        assert graphs.room == ROOM._replace(tokens=8)
        graphs.run(Bucket(8, apart=False))
    assert graphs.room is None


def test_tokens_of_a_prompt_do_not_stand_apart_where_there_is_no_graph_either():
    runner = make_runner()
    for batch in steps(runner, chunk=15):
        together = batch.tokens != len(batch.rows)
        for bucket in (0, 64) if batch.tokens <= 64 else (0,):
            decode = runner._inputs.fill(batch, bucket).paged.decode
            assert decode is None or decode.apart is not together


@pytest.mark.parametrize("told", [False, True])
def test_rows_stand_apart_where_none_is_of_a_prompt(told):
    runner, seen = make_runner(max_concurrent=64), []

    def compute(tensors):
        seen.append((len(tensors.ids), tensors.paged.decode.apart))
        raise torch.OutOfMemoryError

    graphs = StepGraphs(compute, runner._inputs.padded, 64, tells_apart=told)
    mixed, decode = steps(make_runner(), chunk=15)[1], steps(make_runner())[-1]
    for batch in (mixed, decode):
        graphs.run(graphs.bucket(batch))
    assert seen == [(32, False), (4, told)]


@pytest.mark.parametrize("asked", [ASKED, ASKED[:1] * 3], ids=["mixed", "greedy"])
@pytest.mark.parametrize(("depth", "chunk"), [(0, 1000), (1, 1000), (0, 3), (1, 7)])
def test_what_a_graph_draws_is_what_the_sampler_draws(asked, depth, chunk):
    results = []
    for graphs in (False, True):
        runner = make_runner("llama", copies=depth + 1)
        if graphs:
            runner._graphs = Launched(runner._step_of_rows, runner._inputs.padded, 8)
        driver = Driver(runner, depth=depth, chunk=chunk)
        for number, params in enumerate(asked):
            driver.add(make_prompt(5 + 4 * number, number), 4 + 3 * number, **params)
        driver.run()
        results.append([one for _, result in driver.results for one in result.sampled])
        assert not graphs or runner._graphs.runs > 3
    for launched, replayed in zip(*results, strict=True):
        if launched is None or replayed is None:
            assert launched is replayed
            continue
        assert replayed.token_id == launched.token_id
        assert replayed.logprob == pytest.approx(launched.logprob, abs=1e-4), "padding rounds"
        assert [one.token_id for one in replayed.top] == [one.token_id for one in launched.top]
