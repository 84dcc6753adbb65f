"""One request from its first delta to its one terminal message."""

from __future__ import annotations

import itertools
import random
import time

import psutil
import pytest

from llmkernel import protocol
from llmkernel.errors import SlowConsumer
from llmkernel.worker.peers import MAX_OUTBOX_BYTES
from tests.conftest import wait_until
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(60)

ENDLESS = "scripted:eos_after=100000,context_length=20000,blocks=20000"


@pytest.fixture
def endless(runtime_dir):
    """A model that never ends by itself, behind a front that cuts after half a second."""
    with serving(ENDLESS, patience=0.5) as inside:
        yield inside


def text_of(deltas, index=0):
    return "".join(delta.text for delta in deltas if delta.index == index)


def test_deltas_have_no_gap_and_add_up_to_the_answer(client):
    client.submit(key=1, max_tokens=40)
    finished = client.terminal()
    client.submit(key=2, max_tokens=40, stream=False)
    whole = client.terminal().outputs[0]
    deltas = client.deltas(1)
    assert [delta.seq for delta in deltas] == list(range(len(deltas)))
    assert text_of(deltas) == whole.text
    assert list(itertools.chain(*(delta.token_ids for delta in deltas))) == whole.token_ids
    assert finished.usage.completion_tokens == len(whole.token_ids)
    assert finished.outputs[0].finish_reason == whole.finish_reason
    assert (finished.outputs[0].text, finished.outputs[0].token_ids) == ("", [])


def test_a_request_that_is_not_streamed_gets_no_deltas(client):
    client.submit(stream=False, max_tokens=20)
    client.terminal()
    assert client.deltas() == []


def test_one_message_per_step_holds_all_streams_of_a_client(runtime_dir):
    with serving("scripted:step_ms=5,eos_after=100000") as served:
        with RawClient(served.connection) as raw:
            served.gate.open.clear()
            for key in range(16):
                raw.submit(key=key, max_tokens=30)
            for _ in range(16):
                raw.until(protocol.Accepted)
            served.gate.open.set()
            for _ in range(16):
                raw.terminal()
            messages = [one for one in raw.seen if isinstance(one, protocol.Deltas)]
            full = [one for one in messages if len(one.deltas) == 16]
        assert len(full) >= 25
        for one in messages:
            assert len({delta.id for delta in one.deltas}) == len(one.deltas)


def test_several_answers_interleave_and_end_together(client):
    client.submit(n=4, temperature=1.0, seed=1, max_tokens=12, logprobs=1, ignore_eos=True)
    finished = client.terminal()
    deltas = client.deltas()
    assert {delta.index for delta in deltas} == {0, 1, 2, 3}
    assert [delta.seq for delta in deltas] == list(range(len(deltas)))
    assert finished.usage.completion_tokens == 48
    assert len({text_of(deltas, index) for index in range(4)}) > 1
    assert all(len(delta.logprobs) == len(delta.token_ids) for delta in deltas)


def test_of_best_of_the_best_are_returned_whole_and_nothing_before(client):
    client.submit(n=2, best_of=5, temperature=1.0, seed=1, max_tokens=10)
    finished = client.terminal()
    assert client.deltas() == []
    means = [output.mean_logprob for output in finished.outputs]
    assert [output.index for output in finished.outputs] == [0, 1]
    assert means == sorted(means, reverse=True)
    assert all(output.text for output in finished.outputs)
    assert all(output.logprobs is None for output in finished.outputs)
    assert finished.usage.completion_tokens > sum(len(o.token_ids) for o in finished.outputs)


def test_prompt_logprobs_cover_the_prompt(client):
    client.submit(prompt="abc", max_tokens=0, prompt_logprobs=2)
    finished = client.terminal()
    entries = finished.prompt_logprobs
    assert [entry.token_id for entry in entries] == finished.prompt_token_ids
    assert entries[0].logprob is None
    assert all(entry.logprob < 0 and len(entry.top) <= 2 for entry in entries[1:])
    assert [entry.text for entry in entries[1:]] == ["a", "b", "c"]


def test_a_stop_text_ends_the_answer_before_it_and_frees_the_engine(endless):
    with RawClient(endless.connection) as raw:
        raw.submit(key=1, max_tokens=200, stream=False)
        text = raw.terminal().outputs[0].text
        stop = text[50:56]
        raw.submit(key=2, max_tokens=200, stop=[stop])
        finished = raw.terminal()
        output = finished.outputs[0]
        assert text_of(raw.deltas(2)) == text[: text.index(stop)]
        assert (output.finish_reason, output.stop_reason) == ("stop", stop)
        assert finished.usage.completion_tokens == text.index(stop) + len(stop)
        wait_until(
            lambda: endless.engine.load().running == 0, seconds=2, what="the engine to stop it"
        )


def test_a_stop_token_ends_the_answer_and_is_not_shown(endless):
    with RawClient(endless.connection) as raw:
        raw.submit(key=1, max_tokens=60, stop_token_ids=[ord(" ")])
        output = raw.terminal().outputs[0]
        deltas = raw.deltas()
        assert (output.finish_reason, output.stop_reason) == ("stop", ord(" "))
        assert " " not in text_of(deltas)
        assert deltas[-1].token_ids == [ord(" ")]


def test_usage_and_timings_are_those_of_the_request(runtime_dir):
    model = "scripted:step_ms=10,eos_after=100000"
    with serving(model) as served, RawClient(served.connection) as raw:
        raw.submit(key=1, prompt="x" * 40, max_tokens=20)
        first = raw.terminal()
        raw.submit(key=2, prompt="x" * 40, max_tokens=20)
        again = raw.terminal()
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (41, 20)
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 32)
    assert 0.15 < first.timings.decode < 1.5
    assert 0.009 < first.timings.prefill < 0.5
    assert 0 <= first.timings.queue < 0.5


def test_cancel_ends_a_request_with_what_it_had(endless):
    with RawClient(endless.connection) as raw:
        raw.submit(key=1, max_tokens=10_000, stream=False)
        raw.until(protocol.Accepted)
        wait_until(lambda: endless.engine.load().tokens_generated > 20, seconds=5, what="tokens")
        began = time.monotonic()
        raw.send(protocol.Cancel(id=1))
        cancelled = raw.terminal()
        assert time.monotonic() - began < 1.0
        assert isinstance(cancelled, protocol.Cancelled)
        assert cancelled.outputs[0].finish_reason == "cancelled"
        assert len(cancelled.outputs[0].text) > 20
        raw.send(protocol.Cancel(id=1))
        raw.send(protocol.Cancel(id=12345))
        assert raw.listen(0.2) is None


def test_without_credit_a_stream_waits_and_goes_on_where_it_was(runtime_dir):
    late = 30  # steps that the engine may do before it hears of the pause
    with serving(f"{ENDLESS},step_ms=1") as served, RawClient(served.connection) as raw:
        raw.submit(key=1, max_tokens=400, credit=100)
        counts = []
        for credit in (0, 50, 10**9):
            raw.send(protocol.Credit(id=1, tokens=credit))
            while raw.listen(0.3):
                pass
            counts.append(sum(len(delta.token_ids) for delta in raw.deltas()))
        assert 100 <= counts[0] <= 100 + late
        assert 150 <= counts[1] <= 150 + late
        assert isinstance(raw.seen[-1], protocol.Finished)
        raw.submit(key=2, max_tokens=400, stream=False)
        assert text_of(raw.deltas(1)) == raw.terminal().outputs[0].text


def test_a_stream_whose_reader_stalls_is_cut_and_its_neighbours_go_on(runtime_dir):
    model = f"{ENDLESS},step_ms=1"
    with (
        serving(model, patience=0.5) as endless,
        RawClient(endless.connection) as slow,
        RawClient(endless.connection) as quick,
    ):
        slow.submit(key=1, max_tokens=15_000, credit=10)
        quick.submit(key=1, max_tokens=15_000)
        granted, began = 0, time.monotonic()
        gaps, last = [], began
        while time.monotonic() - began < 1.5:
            message = quick.listen(1.0)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
            if isinstance(message, protocol.Deltas):
                granted += len(message.deltas[0].token_ids)
            if granted > 200:
                quick.send(protocol.Credit(id=1, tokens=granted))
                granted = 0
        quick.send(protocol.Cancel(id=1))
        failed = slow.terminal()
        assert isinstance(failed, protocol.Failed)
        assert failed.code == SlowConsumer.code
        assert slow.listen(0.3) is None, "a second terminal message"
        assert max(gaps) < 0.5
        assert isinstance(quick.terminal(), protocol.Cancelled)
        wait_until(
            lambda: endless.engine.load().running == 0, seconds=2, what="the engine to be idle"
        )


def test_a_client_that_takes_nothing_at_all_is_dropped_without_harm(runtime_dir):
    """Not even what its socket holds is taken: the pipe fills, then the outbox, then it is cut."""
    model = "scripted:eos_after=100000,context_length=20000,blocks=40000"
    small = {"rcvhwm": 1, "rcvbuf": 4096, "heartbeat_ivl": 0}
    with (
        serving(model, patience=0.5) as served,
        RawClient(served.connection, **small) as stuck,
        RawClient(served.connection) as quick,
    ):
        for key in range(64):
            stuck.submit(key=key, prompt=f"{key}", max_tokens=15_000)

        def dropped():
            """It still says that it reads, and nobody waits for it."""
            for key in range(64):
                stuck.send(protocol.Credit(id=key, tokens=1024))
            quick.submit(prompt="q", max_tokens=2, stream=False)
            assert isinstance(quick.terminal(), protocol.Finished)
            quick.send(protocol.GetStatus(id=1))
            return quick.until(protocol.StatusReport).clients == 1

        wait_until(dropped, seconds=30, what="the stuck client to be dropped")
        wait_until(lambda: not served.front.busy, seconds=5, what="the end of what it had")


@pytest.mark.timeout(90)
def test_a_client_that_asks_and_never_reads_is_dropped_before_it_fills_the_memory(served):
    small = {"rcvhwm": 1, "rcvbuf": 4096, "heartbeat_ivl": 0, "sndhwm": 0}
    stuck, quick = RawClient(served.connection, **small), RawClient(served.connection)
    with stuck, quick:
        quick.send(protocol.GetStatus(id=1))
        assert quick.receive().clients == 2
        before = psutil.Process().memory_info().rss
        for number in range(60_000):
            stuck.send(protocol.GetStatus(id=number))

        def dropped():
            quick.send(protocol.GetStatus(id=1))
            return quick.receive().clients == 1

        # 60,000 answers are made before: seconds of work, and more beside others
        wait_until(dropped, seconds=60, what="the stuck client to be dropped")
        assert psutil.Process().memory_info().rss - before < 3 * MAX_OUTBOX_BYTES


def test_a_row_of_nan_fails_its_own_request(runtime_dir):
    model = "scripted:nan_for=poison,step_ms=1"
    with serving(model) as served, RawClient(served.connection) as raw:
        raw.submit(key=1, prompt="good", max_tokens=20)
        raw.submit(key=2, prompt="poison", max_tokens=20)
        ended = {one.id: one for one in (raw.terminal(), raw.terminal())}
        assert isinstance(ended[1], protocol.Finished)
        assert isinstance(ended[2], protocol.Failed)
        assert ended[2].code == "numerical_error"


def test_tokens_that_cannot_be_made_text_fail_their_own_request(served, client, caplog):
    sound = served.parts.tokenizer

    class Brittle(type(sound)):
        pieces = None

        def decode(self, token_ids, skip_special_tokens):
            if len(token_ids) and ord("v") in token_ids:
                raise ZeroDivisionError
            return sound.decode(token_ids, skip_special_tokens)

    served.serve(Brittle())
    answers = []
    for key in range(40):
        client.submit(key=key, prompt=f"{key}", max_tokens=60, ignore_eos=True)
        answers.append(client.terminal())
    assert {type(answer).__name__ for answer in answers} == {"Failed", "Finished"}
    assert "ZeroDivisionError" in caplog.text


def test_an_answer_larger_than_a_message_fails_in_words(runtime_dir):
    model = "scripted:eos_after=1000000,context_length=20000,blocks=20000"
    with serving(model, max_concurrent=8) as served, RawClient(served.connection) as raw:
        raw.submit(
            key=1, prompt="x", max_tokens=9_000, n=3, temperature=1.0, logprobs=20, stream=False
        )
        failed = raw.terminal(30.0)
    assert isinstance(failed, protocol.Failed)
    assert "Stream the answer" in failed.message


def test_whatever_happens_each_request_has_one_terminal_message(runtime_dir):
    """Streamed or not, cancelled, stopped, refused, too wide for the batch: one end each."""
    draw = random.Random(3)
    model = "scripted:step_ms=0.2,nan_for=poison"
    with (
        serving(model, max_concurrent=8, queue=64) as served,
        RawClient(served.connection) as raw,
    ):
        for key in range(400):
            raw.submit(
                key=key,
                prompt=draw.choice(["a", "poison", "", "x" * 3000, "hello there", [999]]),
                max_tokens=draw.randrange(1, 40),
                temperature=1.0,
                n=draw.choice([1, 1, 1, 3]),
                stream=draw.random() < 0.5,
                stop=draw.choice([[], ["e"], ["zzz"]]),
                credit=draw.choice([1, 1024]),
            )
            if draw.random() < 0.3:
                raw.send(protocol.Cancel(id=draw.randrange(key + 1)))
            raw.send(protocol.Credit(id=draw.randrange(key + 1), tokens=50))
            if draw.random() < 0.3:
                raw.listen(0.01)
        wait_until(lambda: _granting(raw, served), seconds=30, what="everything to end")
        while raw.listen(0.3):
            pass
        ends = [one.id for one in raw.seen if isinstance(one, protocol.TERMINAL)]
    assert sorted(ends) == list(range(400))


def _granting(raw, served):
    """Read and give credit to all; True once nothing is in flight."""
    while raw.listen(0.0):
        pass
    ended = {one.id for one in raw.seen if isinstance(one, protocol.TERMINAL)}
    for key in set(range(400)) - ended:
        raw.send(protocol.Credit(id=key, tokens=100))
    return not served.front.busy
