"""Who gets in, and what is said first."""

from __future__ import annotations

import socket
import time

import msgspec
import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from llmkernel import protocol
from llmkernel.errors import ProtocolMismatch
from tests.conftest import wait_until
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(30)


def stranger(connection):
    """The same worker, with a key that is not on its list."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return msgspec.structs.replace(connection, client_public_key=public, client_secret_key=secret)


def test_hello_is_answered_with_the_instance_of_the_connection_file(served):
    with RawClient(served.connection, hello=False) as raw:
        raw.send(protocol.Hello(client="test"))
        welcome = raw.receive()
    assert welcome.instance == served.connection.instance
    assert (welcome.protocol, welcome.state) == (protocol.PROTOCOL_VERSION, "ready")


def test_before_hello_nothing_is_answered(served):
    with RawClient(served.connection, hello=False) as raw:
        raw.send(protocol.GetStatus(id=1))
        raw.submit()
        assert raw.listen(0.3) is None
        raw.send(protocol.Hello())
        assert isinstance(raw.receive(), protocol.Welcome)
        raw.submit()
        assert isinstance(raw.terminal(), protocol.Finished)
    assert served.front.malformed.count == 2


def test_another_major_version_is_told_both_versions_and_served_nothing(served):
    major = protocol.PROTOCOL_VERSION[0] + 1
    with RawClient(served.connection, hello=False) as raw:
        raw.send(protocol.Hello(protocol=(major, 3)))
        goodbye = raw.receive(1.0)
        assert isinstance(goodbye, protocol.Goodbye)
        assert goodbye.code == ProtocolMismatch.code
        assert f"{major}.3" in goodbye.message
        assert f"{protocol.PROTOCOL_VERSION[0]}.{protocol.PROTOCOL_VERSION[1]}" in goodbye.message
        raw.submit()
        assert raw.listen(0.3) is None


def test_another_minor_version_and_unknown_fields_are_served(served):
    with RawClient(served.connection, hello=False) as raw:
        hello = {"type": "hello", "protocol": [protocol.PROTOCOL_VERSION[0], 999], "colour": "red"}
        raw.send(msgspec.msgpack.encode(hello))
        assert isinstance(raw.receive(), protocol.Welcome)


def test_a_key_that_is_not_listed_is_refused(served):
    with RawClient(stranger(served.connection), hello=False, reconnect_ivl=-1) as raw:
        monitor = raw.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        raw.send(protocol.Hello())
        assert monitor.poll(5000), "the handshake went on"
        assert parse_monitor_message(monitor.recv_multipart())["value"] == 400
        assert raw.listen(0.2) is None
        raw.socket.disable_monitor()
    assert served.front.refused.count >= 1


def test_a_client_without_encryption_gets_nothing(served):
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(served.connection.endpoint)
    plain.send(protocol.encode(protocol.Hello()))
    assert not plain.poll(500)
    context.destroy(linger=0)


def test_hello_again_begins_anew_and_cancels_what_ran(runtime_dir):
    with (
        serving("scripted:step_ms=5,eos_after=100000") as served,
        RawClient(served.connection) as raw,
    ):
        raw.submit(max_tokens=1000)
        raw.until(protocol.Deltas)
        raw.send(protocol.Hello())
        raw.until(protocol.Welcome)
        wait_until(lambda: not served.front.busy, seconds=1, what="the old request to end")
        raw.submit(key=1, max_tokens=2)
        assert isinstance(raw.terminal(), protocol.Finished)


def test_nobody_takes_over_the_answers_of_another_connection(runtime_dir):
    with (
        serving("scripted:step_ms=5,eos_after=100000") as served,
        RawClient(served.connection, routing_id=b"me") as first,
        RawClient(served.connection, hello=False, routing_id=b"me") as second,
    ):
        first.submit(max_tokens=100)
        first.until(protocol.Deltas)
        second.send(protocol.Hello())
        assert second.listen(0.3) is None
        assert isinstance(first.terminal(), protocol.Finished)
        assert [delta.seq for delta in first.deltas()] == list(range(100))


def test_a_message_above_the_limit_cuts_its_sender_and_nobody_else(served, client):
    limit = protocol.MAX_WIRE_BYTES
    with RawClient(served.connection, reconnect_ivl=-1) as raw:
        monitor = raw.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        raw.send(b"\0" * (limit + 1))
        assert monitor.poll(5000), "the connection went on"
        raw.socket.disable_monitor()
    client.submit()
    assert isinstance(client.terminal(), protocol.Finished)


def test_a_connection_that_says_nothing_is_closed_after_two_seconds(runtime_dir):
    with serving(transport="tcp") as served:
        host, port = served.connection.endpoint.removeprefix("tcp://").split(":")
        assert host == "127.0.0.1"
        mute = [socket.create_connection((host, int(port))) for _ in range(20)]
        began = time.monotonic()
        for one in mute:
            one.settimeout(5)
            while one.recv(1024):
                pass
            one.close()
        assert 1.0 < time.monotonic() - began < 4.0
