"""What is no message of the protocol, from outsiders and from clients: ignored, and nothing breaks."""

from __future__ import annotations

import os
import pickle
import random
import socket
import struct

import msgspec
import psutil
import pytest

from llmkernel import protocol
from llmkernel.errors import UnsupportedField
from tests.conftest import wait_until
from tests.wire.raw import RawClient

CONNECTIONS = 5_000
MESSAGES = 20_000
GREETING = bytes.fromhex("ff00000000000000017f0300")
CURVE = b"CURVE".ljust(20, b"\0")
NULL = b"NULL".ljust(20, b"\0")


def raw_attempt(draw: random.Random) -> bytes:
    """Bytes that something which is no client might send."""
    noise = draw.randbytes(draw.randrange(1, 200))
    return draw.choice(
        [
            noise,
            GREETING + CURVE + bytes(32) + noise,
            GREETING + NULL + bytes(32) + b"\x04\x26\x05READY" + noise,
            GREETING + CURVE + bytes(32) + b"\x04\xc8\x05HELLO" + draw.randbytes(194),
            # a header that claims 8 GiB
            GREETING + NULL + bytes(32) + b"\x02" + struct.pack(">Q", 8 * 2**30) + noise,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ]
    )


def odd_message(draw: random.Random) -> bytes:
    """Something that is no message, or one that is wrong."""
    good = protocol.encode(protocol.Submit(id=draw.randrange(10), prompt="hello"))
    cut = draw.randrange(len(good))
    values = [None, -1, 2**63, 1.5, "x", [], {}, [[]], {"a": 1}, True, b"\xff"]
    wrong = {"type": draw.choice(["submit", "hello", "cancel", "credit", "nothing", 7])}
    wrong |= {name: draw.choice(values) for name in ("id", "prompt", "params", "stream", "tokens")}
    return draw.choice(
        [
            draw.randbytes(draw.randrange(0, 100)),
            good[:cut],
            good[:cut] + bytes((draw.randrange(256),)) + good[cut + 1 :],
            msgspec.msgpack.encode(wrong),
            b"\x91" * draw.randrange(1, 5000),
            pickle.dumps(wrong),
        ]
    )


def footprint() -> tuple[int, float]:
    """Descriptors and MiB of this process, which holds the front."""
    process = psutil.Process()
    return process.num_fds(), process.memory_info().rss / 2**20


@pytest.mark.timeout(60)
def test_thousands_of_raw_connections_reach_nobody_and_leave_nothing(served, client):
    path = served.connection.endpoint.removeprefix("ipc://")
    draw = random.Random(7)
    fds, mib = footprint()
    for number in range(CONNECTIONS):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            one.sendall(raw_attempt(draw))
        if number % 500 == 499:
            client.send(protocol.GetStatus(id=number))
            assert isinstance(client.receive(), protocol.StatusReport)
    assert served.front.malformed.count == 0, "something was delivered"
    wait_until(lambda: footprint()[0] <= fds + 4, seconds=10, what="the connections to be closed")
    assert footprint()[1] <= mib + 8
    with RawClient(served.connection) as honest:
        honest.submit()
        assert isinstance(honest.terminal(2.0), protocol.Finished)


@pytest.mark.timeout(60)
def test_thousands_of_malformed_messages_of_a_client_harm_nobody(served, client):
    draw = random.Random(11)
    with RawClient(served.connection) as rude:
        for _ in range(MESSAGES):
            rude.send(odd_message(draw))
        rude.send(protocol.Hello())
        rude.until(protocol.Welcome, seconds=30)
        count = served.front.malformed
        wait_until(lambda: count.count > MESSAGES * 0.8, seconds=30, what="all to be looked at")
    client.submit()
    assert isinstance(client.terminal(), protocol.Finished)
    wait_until(lambda: not served.front.busy, seconds=5, what="what they began to end")


def test_a_pickle_is_not_opened(served, client, tmp_path):
    canary = tmp_path / "opened"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    client.send(pickle.dumps(Bomb()))
    client.send(protocol.GetStatus(id=1))
    assert isinstance(client.receive(), protocol.StatusReport)
    assert not canary.exists()
    assert served.front.malformed.count == 1


def test_several_frames_are_no_message(served, client):
    client.socket.send_multipart([b"", protocol.encode(protocol.GetStatus(id=1))])
    assert client.listen(0.2) is None
    assert served.front.malformed.count == 1


@pytest.mark.parametrize("kind", ["submit", "tokenize", "detokenize"])
def test_a_request_that_is_wrong_is_refused_by_its_id(client, kind):
    client.send(msgspec.msgpack.encode({"type": kind, "id": 42, "prompt": 7.5, "text": 1}))
    refused = client.receive()
    assert isinstance(refused, protocol.Refused)
    assert (refused.id, refused.code) == (42, "invalid_request")


def test_an_unknown_sampling_field_is_refused_by_name(client):
    message = {"type": "submit", "id": 3, "prompt": "x", "params": {"temprature": 1.0}}
    client.send(msgspec.msgpack.encode(message))
    refused = client.receive()
    assert (refused.id, refused.code) == (3, UnsupportedField.code)
    assert "temprature" in refused.message


def test_half_of_a_surrogate_pair_is_refused(client):
    broken = protocol.encode(protocol.Submit(id=5, prompt="ab!")).replace(b"ab!", b"\xed\xa0\x80")
    client.send(broken)
    refused = client.receive()
    assert (refused.id, refused.code) == (5, "invalid_request")


def test_a_refusal_does_not_repeat_the_prompt(client):
    secret = "my secret prompt"
    wrong = {"type": "submit", "id": 6, "prompt": secret, "params": {"top_k": "many"}}
    client.send(msgspec.msgpack.encode(wrong))
    assert secret not in client.receive().message
