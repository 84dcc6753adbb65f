"""Workers that are not what the connection file says, or do not behave: an error, never a wait for ever."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time

import msgspec
import pytest
import zmq

from llmkernel import connection as files
from llmkernel import protocol
from llmkernel.client import Client
from llmkernel.client.calls import SyncInbox, run
from llmkernel.client.core import Core
from llmkernel.client.faces import on_terms
from llmkernel.client.link import Link
from llmkernel.client.terms import Terms
from llmkernel.errors import (
    ConnectionProblem,
    Draining,
    LLMKernelError,
    NotAuthorized,
    ProtocolMismatch,
    RequestCancelled,
    WorkerNotFound,
    WorkerUnresponsive,
)
from tests.client.fake_worker import HangUp, fake_worker
from tests.conftest import wait_until
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(60)


def silent(message, say):
    """Never says anything after the welcome."""


def submit(**fields):
    return protocol.Submit(id=0, prompt="x", **fields)


def parts(*numbers):
    deltas = [
        protocol.StreamDelta(id=0, seq=number, text=f"{number}", token_ids=[number])
        for number in numbers
    ]

    def reply(message, say):
        if isinstance(message, protocol.Submit):
            for delta in deltas:
                same = protocol.StreamDelta(
                    id=message.id, seq=delta.seq, text=delta.text, token_ids=delta.token_ids
                )
                say(protocol.Deltas(deltas=[same]))

    return reply


def test_another_instance_at_the_address_is_no_worker(runtime_dir):
    with (
        fake_worker(silent, instance="another") as fake,
        Client(fake.connection) as llm,
        pytest.raises(WorkerNotFound, match="out of date"),
    ):
        llm.status()


def test_a_worker_of_another_major_version_is_refused_by_both_numbers(runtime_dir):
    theirs = (protocol.PROTOCOL_VERSION[0] + 1, 7)
    began = time.monotonic()
    with (
        fake_worker(silent, protocol=theirs) as fake,
        Client(fake.connection) as llm,
        pytest.raises(ProtocolMismatch, match=rf"{theirs[0]}\.7") as caught,
    ):
        llm.generate("x")
    assert f"{protocol.PROTOCOL_VERSION[0]}.{protocol.PROTOCOL_VERSION[1]}" in caught.value.message
    assert time.monotonic() - began < 1.0


NEW_TERMS = [("cache_salt", "mine"), ("max_prompt_tokens", 5), ("max_total_tokens", 9)]


@pytest.mark.parametrize(("field", "value"), NEW_TERMS)
@pytest.mark.parametrize("version", [{}, {"protocol": (1, 0)}])
def test_what_an_older_worker_would_ignore_is_not_sent_to_it(runtime_dir, field, value, version):
    with fake_worker(parts(0), **version) as fake, Client(fake.connection) as llm:
        asking = on_terms(llm.aio, Terms(**{field: value}))
        with pytest.raises(ProtocolMismatch, match=rf"{field}. Restart the worker") as caught:
            asyncio.run(asking.generate("x"))
        assert "protocol 1.0" in caught.value.message
        assert not any(isinstance(message, protocol.Submit) for message in fake.got)
        with llm.stream("x") as stream:  # without terms it is asked as ever
            assert next(stream).text == "0"


@pytest.mark.parametrize(("field", "value"), NEW_TERMS)
def test_a_worker_that_says_that_it_is_newer_is_asked(runtime_dir, field, value):
    with fake_worker(parts(0), protocol=(1, 1)) as fake, Client(fake.connection) as llm:

        async def first():
            async with on_terms(llm.aio, Terms(**{field: value})).stream("x") as stream:
                return await anext(stream)

        assert asyncio.run(first()).text == "0"
        (asked,) = (each for each in fake.got if isinstance(each, protocol.Submit))
        assert getattr(asked, field) == value


def test_both_sides_say_which_minor_version_they_speak(runtime_dir):
    with serving() as served, fake_worker(silent) as fake, Client(fake.connection) as llm:
        with contextlib.suppress(LLMKernelError):
            llm.generate("x", timeout=0.2)
        assert fake.got[0].protocol == protocol.PROTOCOL_VERSION
        hello = msgspec.msgpack.decode(protocol.encode(fake.got[0]))
        assert hello["protocol"] == list(protocol.PROTOCOL_VERSION)
        assert files.find(served.connection.name).protocol == protocol.PROTOCOL_VERSION


def test_a_key_that_the_worker_does_not_know_is_not_authorized(runtime_dir):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    with serving() as served:
        files.write(
            msgspec.structs.replace(
                served.connection, client_public_key=public, client_secret_key=secret
            )
        )
        with Client(served.connection) as llm, pytest.raises(NotAuthorized):
            llm.status()


def test_a_worker_that_does_not_even_say_hello_is_unresponsive(runtime_dir, monkeypatch):
    monkeypatch.setattr("llmkernel.client.channel.CONNECT_SECONDS", 1.0)
    with serving() as served:
        served.loop.call_soon_threadsafe(time.sleep, 4)
        began = time.monotonic()
        with Client(served.connection) as llm, pytest.raises(WorkerUnresponsive) as caught:
            llm.generate("x")
        name = served.connection.name
        assert f"end it with: llmkernel stop --kill {name}" in caught.value.message
        assert time.monotonic() - began < 3.5


def test_more_clients_than_the_process_has_sockets_for_are_refused_and_none_hangs(start_worker):
    worker = start_worker("scripted")
    program = """if True:
        import sys, time, zmq, llmkernel
        from llmkernel.client.background import background
        from llmkernel.errors import ConnectionProblem
        background().context.set(zmq.MAX_SOCKETS, 12)
        clients = []
        try:
            for number in range(12):
                clients.append(llmkernel.connect(sys.argv[1]))
                clients[-1].generate("hello", max_tokens=1)
        except ConnectionProblem as error:
            print(len(clients), error)
        clients.pop().close()
        clients.pop().close()
        while True:  # their sockets are closed in the background
            try:
                answer = llmkernel.connect(sys.argv[1]).generate("hello", max_tokens=1)
                break
            except ConnectionProblem:
                time.sleep(0.02)
        print(answer.usage.completion_tokens)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, worker.name],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "can open no more connections" in done.stdout
    assert done.stdout.splitlines()[-1] == "1", "room that was made is used"
    assert done.stderr == ""


def test_a_worker_that_falls_silent_is_unresponsive(runtime_dir):
    with fake_worker(parts(0, 1)) as fake:
        core = Core(Link(fake.connection, silence=0.5), SyncInbox)
        reading = core.read(submit(), None)
        began = time.monotonic()
        with pytest.raises(WorkerUnresponsive, match="said nothing") as caught:
            run(reading.all())
        assert 0.5 < time.monotonic() - began < 3.0
    assert caught.value.partial.text == "01"
    assert f"end it with: llmkernel stop --kill {fake.connection.name}" in caught.value.message


def test_a_worker_that_pings_is_waited_for(runtime_dir):
    def reply(message, say):
        if isinstance(message, protocol.Submit):
            for _ in range(10):
                say(protocol.Ping())
                time.sleep(0.2)
            output = protocol.Output(text="late", token_ids=[1])
            say(
                protocol.Finished(
                    id=message.id,
                    outputs=[output],
                    usage=protocol.Usage(),
                    timings=protocol.Timings(),
                )
            )

    with fake_worker(reply) as fake:
        core = Core(Link(fake.connection, silence=1.0), SyncInbox)
        assert run(core.generate(submit(), None)).text == "late"


def test_a_question_without_an_answer_has_a_limit(runtime_dir, monkeypatch):
    monkeypatch.setattr("llmkernel.client.core.STATUS_SECONDS", 0.3)
    with (
        fake_worker(silent) as fake,
        Client(fake.connection) as llm,
        pytest.raises(WorkerUnresponsive, match=r"within 0\.3 s"),
    ):
        llm.status()


def test_a_missing_part_is_an_error_and_never_a_silent_gap(runtime_dir):
    with fake_worker(parts(0, 1, 3)) as fake, Client(fake.connection) as llm:
        stream = llm.stream("x")
        assert [str(next(stream)), str(next(stream))] == ["0", "1"]
        with pytest.raises(ConnectionProblem, match="Part 2"):
            next(stream)
        wait_until(
            lambda: isinstance(fake.got[-1], protocol.Cancel),
            seconds=2,
            what="the rest to be refused",
        )


def test_goodbye_ends_what_is_in_flight_with_its_reason(runtime_dir):
    def reply(message, say):
        say(protocol.Goodbye(code=Draining.code, message="Leaving."))

    with (
        fake_worker(reply) as fake,
        Client(fake.connection) as llm,
        pytest.raises(Draining, match=r"Leaving\."),
    ):
        llm.generate("x")


def test_what_the_worker_cancels_by_itself_is_an_error(runtime_dir):
    def reply(message, say):
        if isinstance(message, protocol.Submit):
            output = protocol.Output(text="half", token_ids=[1], finish_reason="cancelled")
            say(protocol.Cancelled(id=message.id, outputs=[output]))

    with (
        fake_worker(reply) as fake,
        Client(fake.connection) as llm,
        pytest.raises(RequestCancelled) as caught,
    ):
        llm.generate("x")
    assert caught.value.partial.text == "half"


def test_an_unknown_error_code_is_the_root_error(runtime_dir):
    def reply(message, say):
        say(protocol.Refused(id=message.id, code="from_the_future", message="Why not."))

    with (
        fake_worker(reply) as fake,
        Client(fake.connection) as llm,
        pytest.raises(LLMKernelError, match=r"Why not\.") as caught,
    ):
        llm.generate("x")
    assert type(caught.value) is LLMKernelError


@pytest.mark.parametrize("attempt", range(10))
def test_what_a_worker_says_right_before_it_hangs_up_still_counts(runtime_dir, attempt):
    said = parts(*range(200))

    def reply(message, say):
        said(message, say)
        raise HangUp

    with (
        fake_worker(reply) as fake,
        Client(fake.connection) as llm,
        pytest.raises(WorkerUnresponsive) as caught,
    ):
        list(llm.stream("x"))
    assert len(caught.value.partial.token_ids) == 200


def test_credit_is_given_as_tokens_arrive(runtime_dir):
    many = protocol.CREDIT_WINDOW

    def reply(message, say):
        if isinstance(message, protocol.Submit):
            for seq in range(many):
                delta = protocol.StreamDelta(id=message.id, seq=seq, text="x", token_ids=[1])
                say(protocol.Deltas(deltas=[delta]))

    with fake_worker(reply) as fake, Client(fake.connection) as llm:
        stream = llm.stream("x")
        for _ in range(many):
            next(stream)
        stream.close()
        time.sleep(0.2)
        given = [message.tokens for message in fake.got if isinstance(message, protocol.Credit)]
    assert sum(given) == many
    assert len(given) <= 8
