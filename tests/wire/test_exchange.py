"""The worker's socket by itself: nothing that arrives is overlooked while it sends."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from raw import RawClient

from llmkernel import protocol
from llmkernel.config import WorkerConfig
from llmkernel.connection import Keys
from llmkernel.worker.peers import Exchange, Peer


class Board:
    """An exchange on a loop of its own, and what came in."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        keys = Keys.generate()
        self.exchange = Exchange(
            keys,
            on_message=lambda sender, _principal, data: self.arrived.put_nowait((sender, data)),
            on_gone=lambda _peer: None,
            on_disconnect=lambda: None,
            patience=1.0,
        )
        self.connection = SimpleNamespace(
            endpoint=self.exchange.bind(WorkerConfig.build(name="exchange", model="scripted")),
            server_public_key=keys.server_public,
            client_public_key=keys.client_public,
            client_secret_key=keys.client_secret,
        )

    async def next(self) -> tuple[bytes, bytes]:
        return await asyncio.wait_for(self.arrived.get(), 5.0)


@pytest.mark.parametrize("fails", [False, True])
def test_what_arrives_while_a_step_is_sent_is_read(fails: bool) -> None:
    async def talk() -> None:
        board = Board()
        exchange = board.exchange
        exchange.start(asyncio.get_running_loop())
        client = RawClient(board.connection, hello=False)  # type: ignore[arg-type]
        try:
            client.send(b"first")
            sender, _ = await board.next()
            peer = Peer(sender, "somebody")
            for number in range(20):
                client.send(b"%d" % number)
                time.sleep(0.005)  # noqa: ASYNC251 - it arrives, and the loop does not look
                with contextlib.suppress(ZeroDivisionError), exchange.many():
                    exchange.send(peer, protocol.Ping())
                    exchange.send(peer, protocol.Ping())
                    _ = 1 // (not fails)
                assert await board.next() == (sender, b"%d" % number)
        finally:
            client.close()
            exchange.close()

    asyncio.run(talk())


class Turns:
    """What a loop does while `count` messages arrive, each of which is answered and takes `seconds`."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds = count, seconds
        self.times: list[tuple[float, float]] = []
        """When each message was taken, and when it was done."""
        self.most = 0
        """Messages in one turn of the loop, at most."""
        self._peers: dict[bytes, Peer] = {}

    def _answer(self, sender: bytes, _principal: str, _data: bytes) -> None:
        began = time.monotonic()
        time.sleep(self.seconds)
        self.board.exchange.send(
            self._peers.setdefault(sender, Peer(sender, "somebody")), protocol.Ping()
        )
        self.times.append((began, time.monotonic()))

    async def run(self) -> None:
        self.board = Board()
        self.board.exchange._on_message = self._answer
        self.board.exchange.start(asyncio.get_running_loop())
        client = RawClient(self.board.connection, hello=False)  # type: ignore[arg-type]
        try:
            for _ in range(self.count):
                client.send(b"more")
            while len(self.times) < self.count:
                before = len(self.times)
                await asyncio.sleep(0)
                self.most = max(self.most, len(self.times) - before)
        finally:
            client.close()
            self.board.exchange.close()


@pytest.mark.timeout(30)
def test_what_is_answered_while_more_arrives_makes_no_turn_of_the_loop_longer() -> None:
    """Each answer looks for what came meanwhile; that must not add up from turn to turn."""
    turns = Turns(150, seconds=0.006)  # more work than a batch may be
    asyncio.run(turns.run())
    assert turns.most <= 3


@pytest.mark.timeout(30)
def test_after_a_message_that_took_long_others_have_as_much_time() -> None:
    turns = Turns(20, seconds=0.03)
    asyncio.run(turns.run())
    ends_and_begins = zip(turns.times, turns.times[1:], strict=False)
    assert all(begin - end > 0.029 for (_, end), (begin, _) in ends_and_begins)


def leave_in_a_flood() -> None:
    """A client leaves while more of its messages wait than the socket takes, and their reader is slow."""

    async def talk() -> None:
        board = Board()
        board.exchange._on_message = lambda *_: time.sleep(0.002)
        board.exchange.start(asyncio.get_running_loop())
        client = RawClient(board.connection, hello=False, sndhwm=0)  # type: ignore[arg-type]
        for _ in range(3000):
            client.send(bytes(300))
        await asyncio.sleep(0.2)
        client.close()
        await asyncio.sleep(2)
        board.exchange.close()

    asyncio.run(talk())


@pytest.mark.timeout(60)
def test_a_client_that_leaves_in_a_flood_does_not_end_the_worker(runtime_dir) -> None:
    # in a process of its own, since it is ZeroMQ that would end it
    code = "from test_exchange import leave_in_a_flood; leave_in_a_flood()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "JUPYTER_RUNTIME_DIR": str(runtime_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
