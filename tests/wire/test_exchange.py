"""The worker's socket by itself: nothing that arrives is overlooked while it sends."""

from __future__ import annotations

import asyncio
import contextlib
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
