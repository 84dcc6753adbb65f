"""A broken step, a broken number, a broken device: who fails, and who must not."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest

from llmkernel.errors import (
    DeviceOutOfMemory,
    EngineDied,
    NumericalError,
    StepFailed,
)
from llmkernel.worker.scripted import Script
from llmkernel.worker.sequence import Request
from llmkernel.worker.step import StepBatch
from tests.engine.driver import Driver, alone, check_equal, request, workload
from tests.engine.test_ends import wait_for


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


class AcceleratorError(RuntimeError):
    """Named as torch names what a device cannot recover from."""


def streams(count: int, max_tokens: int = 60) -> list[Request]:
    """Requests that decode side by side."""
    return [
        request(key, f"prompt {key}", ignore_eos=True, max_tokens=max_tokens)
        for key in range(count)
    ]


def ended(driver: Driver) -> set[int]:
    """Keys of the requests with an end."""
    return {key for key, _ in driver.ends}


# Steps that raise ------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("at", [1, 7, 50])
def test_a_step_that_raises_fails_the_requests_in_it_only(at: int, depth: int, late: bool) -> None:
    driver = Driver(Script(fail_at_step=at, late=late), depth=depth, max_concurrent=4)
    driver.submit(*workload(2, 30))
    inside: set[int] = set()

    def look(number: int, batch: StepBatch) -> None:
        if number == at:
            inside.update(row.sequence.request.key for row in batch.rows)

    driver.runner.at_launch = look
    driver.run()
    assert driver.failed() == inside
    assert 1 <= len(inside) <= 4
    assert {type(end.error) for end in driver.ends.values()} == {StepFailed, type(None)}
    check_equal(driver.tokens, alone(workload(2, 30)), inside)


def test_all_answers_of_a_failed_request_end() -> None:
    driver = Driver(Script(fail_at_step=1), max_concurrent=2)
    driver.submit(request(1, temperature=1.0, n=5))
    driver.run()
    assert [type(driver.error(1, answer)) for answer in range(5)] == [StepFailed] * 5


def test_what_a_failed_step_computed_is_not_found_again() -> None:
    driver = Driver(Script(fail_at_step=3), max_batch_tokens=64)
    driver.submit(request(1, "x" * 200))
    driver.run()
    assert driver.engine.load().cached_blocks == 0


def test_an_error_that_is_told_keeps_nothing_of_the_step_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A traceback has the frames of the model, and those the tensors that nobody has room for."""

    class Tensor:
        pass

    alive: list[weakref.ref[Tensor]] = []

    def fail(number: int, batch: StepBatch) -> Exception:
        error = DeviceOutOfMemory("no room", needed=1)
        error.__cause__ = OutOfMemoryError("CUDA out of memory")
        error.__cause__.tensor = Tensor()  # type: ignore[attr-defined]
        alive.append(weakref.ref(error.__cause__.tensor))  # type: ignore[attr-defined]
        return error

    caplog.set_level(logging.CRITICAL + 1, "llmkernel")  # what is logged is kept by pytest
    driver = Driver()
    driver.runner.at_launch = fail
    driver.submit(request(1))
    driver.run()
    gc.collect()
    error = driver.error(1)
    assert isinstance(error, DeviceOutOfMemory)
    assert error.data == {"needed": 1}
    assert [reference() for reference in alive] == [None]


def test_three_failed_steps_in_a_row_end_the_engine() -> None:
    driver = Driver(max_concurrent=1)
    driver.runner.at_launch = lambda number, batch: ValueError("broken") if number > 5 else None
    driver.submit(*streams(9))
    driver.engine.start()
    wait_for(lambda: driver.deaths)
    assert isinstance(driver.deaths[0], EngineDied)
    kinds = [type(driver.error(key)) for key in range(9)]
    assert kinds == [StepFailed] * 2 + [EngineDied] * 7


def test_failed_steps_with_good_ones_between_do_not() -> None:
    driver = Driver(max_concurrent=1)
    driver.runner.at_launch = lambda number, batch: ValueError() if number % 3 else None
    driver.submit(*streams(12))
    driver.run()
    assert len(driver.failed()) == 12


# Without memory --------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1])
def test_large_steps_that_do_not_fit_are_given_up_and_cost_nobody_anything(depth: int) -> None:
    driver = Driver(max_batch_tokens=64, max_prefill_tokens=512, depth=depth)
    tried = []

    def fail(number: int, batch: StepBatch) -> Exception | None:
        tried.append(batch.tokens)
        return DeviceOutOfMemory("no room") if batch.tokens > 100 else None

    driver.runner.at_launch = fail
    driver.submit(*(request(key, chr(97 + key) * 600, max_tokens=5) for key in range(3)))
    driver.run()
    assert driver.failed() == set()
    assert [tokens for tokens in tried if tokens > 100] == [512]


@pytest.mark.parametrize("error", [DeviceOutOfMemory, OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("at", [7, 12, 50])
def test_no_memory_for_a_decode_step_costs_time_and_no_answer(
    at: int, depth: int, error: type[Exception]
) -> None:
    driver = Driver(max_concurrent=4, depth=depth)
    driver.runner.at_launch = lambda number, batch: error("full") if number == at else None
    driver.submit(*streams(4))
    driver.run()
    assert not driver.failed()
    assert driver.engine.load().preemptions == 1
    check_equal(driver.tokens, alone(streams(4)), set())


@pytest.mark.parametrize("depth", [0, 1])
def test_a_decode_step_shrinks_until_there_is_memory_for_it(depth: int) -> None:
    driver = Driver(depth=depth)
    short = False

    def at_launch(number: int, batch: StepBatch) -> Exception | None:
        return OutOfMemoryError() if short and len(batch.rows) > 3 else None

    driver.runner.at_launch = at_launch
    driver.submit(*streams(16))
    driver.step(5)
    short = True
    driver.step(5)
    before = driver.engine.load().tokens_generated
    driver.step(3)
    assert driver.engine.load().tokens_generated > before
    short = False
    driver.run()
    assert not driver.failed()
    check_equal(driver.tokens, alone(streams(16)), set())


@pytest.mark.parametrize("depth", [0, 1])
def test_with_memory_for_nothing_each_request_fails_by_itself(depth: int) -> None:
    driver = Driver(depth=depth)
    short = True
    driver.runner.at_launch = lambda number, batch: OutOfMemoryError() if short else None
    driver.submit(*streams(8))
    driver.run()
    assert driver.failed() == set(range(8))
    assert not driver.deaths
    short = False
    driver.submit(request(100))
    driver.run()
    assert driver.error(100) is None


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("at", [6, 7, 50])
def test_no_memory_for_a_prefill_fails_that_request_only(at: int, depth: int) -> None:
    driver = Driver(depth=depth)
    short = False

    def at_launch(number: int, batch: StepBatch) -> Exception | None:
        return OutOfMemoryError() if short and any(row.count > 50 for row in batch.rows) else None

    driver.runner.at_launch = at_launch
    driver.submit(*streams(4))
    driver.step(at - 1)
    short = True
    driver.submit(request(9, "l" * 100), request(10, "short prompt"))
    driver.run()
    assert driver.failed() == {9}
    assert isinstance(driver.error(9), DeviceOutOfMemory)
    assert driver.error(10) is None
    check_equal(driver.tokens, alone(streams(4)), {9})


def test_no_memory_that_shows_late_fails_the_step() -> None:
    driver = Driver(Script(oom_at_step=9, late=True), depth=1, max_concurrent=4)
    driver.submit(*streams(8))
    driver.run()
    assert driver.failed() == {0, 1, 2, 3}
    assert all(isinstance(driver.error(key), DeviceOutOfMemory) for key in range(4))
    check_equal(driver.tokens, alone(streams(8)), driver.failed())


def test_after_a_shortage_nobody_is_admitted_for_a_while() -> None:
    driver = Driver(max_concurrent=8)
    driver.runner.at_launch = lambda number, batch: MemoryError() if number == 3 else None
    driver.submit(*streams(2))
    driver.step(3)
    driver.submit(request(9))
    driver.step(8)
    assert (9, 0) not in driver.tokens
    driver.step(6)
    assert (9, 0) in driver.tokens
    driver.run()


# Numbers that are none -------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("params", [{}, {"max_tokens": 0, "prompt_logprobs": 0}])
def test_nan_fails_its_own_request_and_leaves_no_trace_in_the_cache(
    depth: int, params: dict[str, int]
) -> None:
    driver = Driver(Script(nan_for="poison"), max_batch_tokens=32, depth=depth)
    healthy = [request(key, f"fine {key} " * 10) for key in range(15)]
    driver.submit(*healthy, request(99, "poison " * 40, **params))
    driver.run()
    assert driver.failed() == {99}
    assert isinstance(driver.error(99), NumericalError)
    check_equal(driver.tokens, alone(healthy), set())
    driver.submit(again := request(100, "poison " * 40))
    driver.run()
    assert again.cached_tokens == 0


# A lost device ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        EngineDied("lost"),
        AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
def test_a_lost_device_ends_everything_once(depth: int, late: bool, error: BaseException) -> None:
    driver = Driver(depth=depth, max_concurrent=2)
    where = "at_collect" if late else "at_launch"
    setattr(driver.runner, where, lambda number, batch: error if number == 5 else None)
    driver.submit(*streams(6))
    driver.engine.start()
    wait_for(lambda: driver.deaths)
    assert len(driver.deaths) == 1
    assert ended(driver) == set(range(6))
    assert all(isinstance(end.error, EngineDied) for end in driver.ends.values())
    driver.submit(request(7))
    assert isinstance(driver.error(7), EngineDied)
    driver.engine.stop()
    assert len(driver.deaths) == 1


@pytest.mark.parametrize("name", ["remove", "schedule", "landed"])
def test_broken_books_end_everything_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even what is needed for an orderly end may be what broke."""
    driver = Driver()
    driver.submit(*streams(5))
    driver.step(3)
    monkeypatch.setattr(driver.engine.scheduler, name, lambda *_: 1 / 0)
    driver.engine.cancel(0)
    driver.engine.start()
    wait_for(lambda: driver.deaths)
    assert ended(driver) == set(range(5))
    driver.submit(request(7))
    assert isinstance(driver.error(7), EngineDied)


def test_whoever_listens_may_break(caplog: pytest.LogCaptureFixture) -> None:
    driver = Driver()
    broken = threading.Event()

    def take(events: list) -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("the front is gone")
        driver.take(events)

    driver.take_events = driver.engine._on_events
    driver.engine._on_events = take
    driver.submit(*streams(3))
    with caplog.at_level(logging.CRITICAL + 1):
        driver.engine.start()
        wait_for(lambda: driver.deaths)
    assert ended(driver) == {0, 1, 2}


def test_whoever_listens_may_give_orders() -> None:
    driver = Driver()

    def take(events: list) -> None:
        driver.take(events)
        driver.engine.cancel(0)
        driver.engine.stop()

    driver.engine._on_events = take
    driver.submit(*streams(3))
    driver.engine.start()
    wait_for(lambda: len(driver.ends) == 3)
    driver.engine.stop()
