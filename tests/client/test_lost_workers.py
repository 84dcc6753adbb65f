"""A worker that is killed, frozen or started again while clients wait for it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time

import pytest

import llmkernel
from llmkernel.errors import (
    ConnectionProblem,
    Draining,
    RequestCancelled,
    WorkerDied,
    WorkerNotFound,
    WorkerUnresponsive,
)
from tests.client.conftest import ENDLESS
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def worker(start_worker):
    """A worker of this test alone, to be killed."""
    return start_worker(ENDLESS, name="victim")


def caught_in_thread(work):
    """The error that `work` ends with, and when, from a thread of its own."""
    ended: list[tuple[BaseException | None, float]] = []

    def run():
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            ended.append((error, time.monotonic()))
        else:
            ended.append((None, time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def test_a_killed_worker_ends_everything_in_flight_within_a_second(worker):
    llm = llmkernel.Client(worker)
    streams = [llm.stream(f"{number}", max_tokens=15_000) for number in range(5)]
    for stream in streams:
        for _ in range(10):
            next(stream)
    waiting = [
        caught_in_thread(work)
        for work in (
            lambda: llm.generate("x", max_tokens=15_000),
            lambda: list(streams[0]),
            lambda: llm.map(["a", "b"], max_tokens=15_000, progress=False),
        )
    ]
    time.sleep(0.2)
    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    for thread, _ in waiting:
        thread.join(5)
    generated, streamed, mapped = (ended[0] for _, ended in waiting)
    assert max(generated[1], streamed[1], mapped[1]) - killed < 1.0
    assert isinstance(generated[0], WorkerDied)
    assert isinstance(streamed[0], WorkerDied)
    assert streamed[0].data["tokens_delivered"] == len(streamed[0].partial.token_ids) > 10
    assert streamed[0].partial.finish_reason == "error", "nobody cancelled it"
    assert streams[0].generation.finish_reason == "error"
    assert mapped[0] is None, "failures of a map stay in their places"
    for stream in streams[1:]:
        with pytest.raises(WorkerDied):
            list(stream)
    with pytest.raises(WorkerNotFound):
        llm.generate("x")


def test_the_same_client_finds_the_worker_that_was_started_again(worker, start_worker):
    llm = llmkernel.Client(worker)
    before = llm.generate("hello", max_tokens=10, temperature=0).text
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not worker.alive, seconds=2, what="the worker to be gone")
    with pytest.raises(ConnectionProblem):
        llm.status()
    again = start_worker(ENDLESS, name="victim")
    assert again.pid != worker.pid
    assert llm.generate("hello", max_tokens=10, temperature=0).text == before
    assert llm.connection.pid == again.pid


def test_a_frozen_worker_is_noticed_in_flight_and_asked_again_when_it_wakes(worker, monkeypatch):
    monkeypatch.setattr("llmkernel.client.channel.CONNECT_SECONDS", 3.0)
    llm = llmkernel.Client(worker)
    stream = llm.stream("hello", max_tokens=15_000)
    next(stream)
    os.kill(worker.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        with pytest.raises(WorkerUnresponsive) as caught:
            list(stream)
        assert time.monotonic() - frozen < 3.5
        assert caught.value.partial.text
        began = time.monotonic()
        with pytest.raises(WorkerUnresponsive):
            llm.status()
        assert time.monotonic() - began < 7
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: llm.status().load.running == 0, seconds=5, what="the old request to end")
    assert llm.generate("x", max_tokens=3, ignore_eos=True).usage.completion_tokens == 3


def test_a_worker_that_is_told_to_leave_ends_what_runs_in_words(worker):
    llm = llmkernel.Client(worker)
    stream = llm.stream("hello", max_tokens=15_000)
    next(stream)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: _refuses(llm), seconds=1, what="new requests to be refused")
    next(stream)
    os.kill(worker.pid, signal.SIGTERM)
    with pytest.raises(RequestCancelled) as caught:
        list(stream)
    assert caught.value.partial.text


def _refuses(llm):
    try:
        llm.generate("x", max_tokens=1)
    except Draining:
        return True
    return False


def test_a_closed_client_says_so_and_cancels_what_it_had(worker):
    llm, other = llmkernel.Client(worker), llmkernel.Client(worker)
    stream = llm.stream("hello", max_tokens=15_000)
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(ConnectionProblem, match="closed"):
        list(stream)
    with pytest.raises(ConnectionProblem, match="closed"):
        llm.generate("x")
    wait_until(lambda: other.status().load.running == 0, seconds=2, what="its request to end")


def test_a_client_that_nobody_holds_leaves(worker):
    other = llmkernel.Client(worker)
    llm = llmkernel.Client(worker)
    llm.status()
    assert other.status().clients >= 2
    del llm
    wait_until(lambda: other.status().clients == 1, seconds=8, what="the connection to end")


def _in_child(llm, results):
    try:
        llm.generate("x", max_tokens=2)
    except ConnectionProblem as error:
        results.put(error.message)
    with llmkernel.connect("victim") as own:
        results.put(own.generate("x", max_tokens=2, temperature=0).text)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_connect_anew_and_can(worker):
    llm = llmkernel.Client(worker)
    text = llm.generate("x", max_tokens=2, temperature=0).text
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(llm, results))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert "forked" in results.get()
    assert results.get() == text
    assert llm.generate("x", max_tokens=2, temperature=0).text == text


def test_a_client_cannot_be_pickled_and_says_what_another_process_does(worker):
    with llmkernel.Client(worker) as llm, llm.stream("x", max_tokens=2) as stream:
        for held in (llm, llm.chat, llm.aio, stream):
            with pytest.raises(
                ConnectionProblem, match=r"connect there: llmkernel\.connect\('victim'\)"
            ):
                pickle.dumps(held)


def _read_in_child(stream, results):
    try:
        results.put(next(stream).text)
    except ConnectionProblem as error:
        results.put(error.message)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_stream_that_was_begun_before_a_fork_does_not_hang_in_the_child(worker):
    llm = llmkernel.Client(worker)
    stream = llm.stream("x", max_tokens=5, temperature=0)
    first = next(stream).text
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_read_in_child, args=(stream, results))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert "forked" in results.get()
    rest = "".join(delta.text for delta in stream)
    assert first + rest == llm.generate("x", max_tokens=5, temperature=0).text
