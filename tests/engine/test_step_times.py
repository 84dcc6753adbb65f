"""What the engine counts of its steps: each once, and as what it was."""

from __future__ import annotations

import time

import pytest

from llmkernel.parts import STEP_PROMPTS, STEP_SECONDS
from llmkernel.worker.scripted import Script
from tests.engine.driver import Driver, request

pytestmark = pytest.mark.timeout(60)


def test_steps_that_read_prompts_are_told_from_those_that_decode() -> None:
    driver = Driver(prefix_cache=False)
    driver.submit(request(1, max_tokens=10))
    driver.step(3)  # its prompt, then two tokens
    driver.submit(request(2, max_tokens=2), request(3, max_tokens=2))
    driver.run()
    report = driver.engine.steps()
    assert (report.prefill.launched, report.prefill.succeeded, report.prefill.failed) == (2, 2, 0)
    assert report.prefill.launched + report.decode.launched == driver.engine.load().steps
    assert report.joined == 1  # the two came beside the first, which decoded
    assert report.prompts.sum == 3
    assert report.prompts.counts[:2] == [1, 1]
    for kind in (report.prefill, report.decode):
        for spread in (kind.inference, kind.forward, kind.decode):
            assert sum(spread.counts) == kind.succeeded
            assert len(spread.counts) == len(STEP_SECONDS) + 1
        assert kind.inference.sum == pytest.approx(kind.forward.sum + kind.decode.sum)
    assert len(report.prompts.counts) == len(STEP_PROMPTS) + 1


@pytest.mark.parametrize("depth", [0, 1])
def test_a_step_takes_the_time_that_the_one_before_it_left(depth: int) -> None:
    driver = Driver(Script(step_ms=10.0), depth=depth)
    driver.submit(request(1, max_tokens=8))
    began = time.monotonic()
    driver.run()
    passed = time.monotonic() - began
    report = driver.engine.steps()
    seconds = report.prefill.forward.sum + report.decode.forward.sum
    steps = driver.engine.load().steps
    assert 0.01 * (steps - 1) <= seconds  # the scripted model begins to count at the launch
    assert seconds <= passed, "time was counted twice"


def test_a_step_that_breaks_is_counted_as_that() -> None:
    driver = Driver(Script(fail_at_step=2))
    driver.submit(request(1))
    driver.run()
    report = driver.engine.steps()
    assert (report.prefill.failed, report.decode.failed) == (0, 1)
    assert report.decode.launched == report.decode.succeeded + 1
