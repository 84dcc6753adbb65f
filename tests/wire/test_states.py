"""Loading, ready, draining, failed: what is said, what is refused, what goes on."""

from __future__ import annotations

import time

import pytest

from llmkernel import protocol
from llmkernel.errors import EngineDied, NotEnoughMemory
from tests.conftest import wait_until
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(30)

SLOW = "scripted:step_ms=5,eos_after=100000"


@pytest.fixture
def loading(runtime_dir):
    with serving(SLOW, ready=False) as inside:
        yield inside


def watch(raw):
    raw.send(protocol.Watch())
    return raw.until(protocol.StateChange)


def test_while_loading_requests_are_not_ready_and_watchers_see_progress(loading):
    with RawClient(loading.connection) as raw:
        assert watch(raw).state == "loading"
        for message in (
            protocol.Submit(id=1, prompt="x"),
            protocol.Tokenize(id=2, text="x"),
            protocol.Detokenize(id=3, token_ids=[1]),
        ):
            raw.send(message)
            assert raw.receive().code == "not_ready"
        progress = protocol.Progress(stage="read", done=3, total=9, unit="tensors")
        loading.front.progress(progress)
        assert raw.receive() == progress
        raw.send(protocol.GetStatus(id=4))
        report = raw.receive()
        assert (report.state, report.model, report.progress) == ("loading", None, progress)
        loading.ready()
        assert raw.receive().state == "ready"
        raw.submit(key=5)
        assert isinstance(raw.terminal(), protocol.Finished)


def test_who_watches_late_is_told_what_there_was(loading):
    progress = protocol.Progress(stage="download", done=1, total=2, unit="bytes")
    loading.front.progress(progress)
    with RawClient(loading.connection) as raw:
        assert watch(raw).state == "loading"
        assert raw.receive() == progress


def test_a_failed_load_is_told_with_its_numbers_and_refuses_everything(loading):
    with RawClient(loading.connection) as raw:
        watch(raw)
        error = NotEnoughMemory("It does not fit.", needed=5, free=3)
        loading.front.set_failed(error)
        change = raw.receive()
        assert (change.state, change.code, change.data) == (
            "failed",
            "not_enough_memory",
            {"needed": 5, "free": 3},
        )
        raw.submit()
        assert raw.terminal().code == "not_enough_memory"
    with RawClient(loading.connection) as late:
        assert watch(late).message == "It does not fit."


def test_draining_refuses_at_once_and_finishes_what_runs(runtime_dir):
    with serving(SLOW) as served, RawClient(served.connection) as raw:
        raw.submit(key=1, max_tokens=60)
        raw.until(protocol.Deltas)
        served.front.begin_drain()
        began = time.monotonic()
        raw.submit(key=2)
        refused = raw.until(protocol.Refused)
        assert time.monotonic() - began < 0.1
        assert (refused.id, refused.code) == (2, "draining")
        assert served.front.busy
        finished = raw.terminal()
        assert (finished.id, finished.usage.completion_tokens) == (1, 60)
        wait_until(lambda: not served.front.busy, seconds=1, what="the drain")


def test_an_engine_that_stops_cancels_what_ran(runtime_dir):
    with serving(SLOW) as served, RawClient(served.connection) as raw:
        raw.submit(key=1, max_tokens=1000, stream=False)
        raw.submit(key=2, max_tokens=1000)
        raw.until(protocol.Deltas)
        served.engine.stop()
        ended = [raw.terminal(), raw.terminal()]
        assert {type(one) for one in ended} == {protocol.Cancelled}


def test_a_lost_engine_fails_everything_in_flight_and_to_come(runtime_dir):
    with serving(SLOW) as served, RawClient(served.connection) as raw:
        watch(raw)
        for key in range(5):
            raw.submit(key=key, max_tokens=1000)
        raw.until(protocol.Deltas)
        served.gate.open.clear()  # it hangs: no event will come
        served.front.set_failed(EngineDied("The engine is lost."))
        ended = {raw.terminal(1.0).id for _ in range(5)}
        assert ended == set(range(5))
        assert {m.code for m in raw.seen if isinstance(m, protocol.Failed)} == {"engine_died"}
        raw.submit(key=9)
        assert raw.terminal().code == "engine_died"
        assert not served.front.busy


def test_stop_is_answered_and_handed_on(served, client):
    client.send(protocol.Stop(id=1, drain=False))
    assert isinstance(client.receive(), protocol.Stopping)
    wait_until(lambda: served.stops == [False], seconds=1, what="the word to be passed on")


def test_closing_says_goodbye_to_everybody(runtime_dir):
    with serving() as served:
        clients = [RawClient(served.connection) for _ in range(3)]
        served.front.close()
        for raw in clients:
            assert raw.until(protocol.Goodbye).code == "draining"
            raw.close()


def test_idleness_counts_from_the_last_work(runtime_dir):
    with serving(SLOW) as served, RawClient(served.connection) as raw:
        time.sleep(0.2)
        assert served.front.idle_seconds() >= 0.2
        raw.submit(max_tokens=40)
        raw.until(protocol.Accepted)
        assert served.front.idle_seconds() == 0
        raw.send(protocol.GetStatus(id=2))
        raw.terminal()
        assert served.front.idle_seconds() < 0.2


def test_status_says_what_is_held_and_done(client):
    client.submit(max_tokens=4, ignore_eos=True)
    client.terminal()
    client.send(protocol.GetStatus(id=7))
    report = client.receive()
    assert (report.id, report.state, report.name, report.clients) == (7, "ready", "inside", 1)
    assert report.model.context_length == 2048
    assert report.load.tokens_generated == 4
    assert report.rss_bytes > 10**6


def test_a_client_with_work_is_pinged_and_others_are_left_alone(runtime_dir):
    with (
        serving("scripted:step_ms=1500,eos_after=10") as served,
        RawClient(served.connection) as busy,
        RawClient(served.connection) as idle,
    ):
        busy.submit(max_tokens=1, stream=False)
        busy.until(protocol.Accepted)
        pings = 0
        while isinstance(message := _any(busy), protocol.Ping):
            pings += 1
        assert isinstance(message, protocol.Finished)
        assert 2 <= pings <= 6
        assert not idle.socket.poll(0)


def _any(raw):
    assert raw.socket.poll(5000)
    return protocol.decode_worker(raw.socket.recv())
