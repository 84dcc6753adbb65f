"""What CUDA graphs stand on, without a GPU: buckets, and steps that are padded to one."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tiny_models
from llmkernel.worker.graphs import DecodeGraphs, buckets
from llmkernel.worker.sequence import StepBatch
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


def test_only_steps_of_single_sampled_tokens_have_a_graph():
    graphs = DecodeGraphs(lambda tensors: None, lambda bucket: None, max_rows=4)
    *_, decode = steps(make_runner())
    assert graphs.bucket(decode) == 4
    assert graphs.bucket(StepBatch(decode.rows[:1])) == 1
    mixed = steps(make_runner())[0]
    assert graphs.bucket(mixed) == 0, "prompts are no decode rows"
    assert DecodeGraphs(lambda tensors: None, lambda bucket: None, 2).bucket(decode) == 0


@pytest.mark.parametrize("name", tiny_models.VARIANTS)
def test_padding_changes_nothing_for_the_rows(name):
    runner = make_runner(name)
    *_, batch = steps(runner)
    with torch.inference_mode():
        plain = runner._inputs.fill(batch)
        expected = runner._head(runner._forward(plain).index_select(0, plain.sampled))
        for bucket in (3, 4, 8):
            runner._inputs.fill(batch, bucket)
            decoded = runner._decode(runner._inputs.padded(bucket))
            assert decoded.logits.isfinite().all(), "padding must not make numbers that spread"
            torch.testing.assert_close(decoded.logits[:3], expected, rtol=1e-4, atol=1e-4)
