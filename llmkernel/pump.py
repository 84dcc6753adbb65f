"""Messages of a ZeroMQ socket on an asyncio loop, without a future for each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import zmq

_BATCH = 512
"""Messages taken in a row before the loop may do something else,"""
_BATCH_SECONDS = 0.005
"""and for how long."""
_READABLE = int(zmq.POLLIN)
"""A plain number: the enumeration's own operator takes as long as the question."""


class Pump:
    """Calls `handle(frames)` on `loop` for each message that arrives at `socket`.

    The descriptor of a ZeroMQ socket signals edges, not levels, and a send may swallow
    one: call `poke` after sending.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        handle: Callable[[list[zmq.Frame]], None],
    ) -> None:
        self._loop = loop
        self._socket = socket
        self._handle = handle
        self._due = self._held = self._over = False
        self._descriptor = int(socket.getsockopt(zmq.FD))
        loop.add_reader(self._descriptor, self._receive)
        self._soon()

    def poke(self) -> None:
        """Look for messages soon if there are any."""
        if not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE:
            self._soon()

    def hold(self, held: bool) -> None:
        """Leave what arrives at the socket, or take it again."""
        self._held = held
        if not held:
            self._soon()

    def drain(self) -> None:
        """Handle everything that has arrived, now."""
        while self._receive_one():
            pass

    def close(self) -> None:
        """Stop listening and close the socket, if its context has not; again is no error."""
        if not self._over:
            self._over = True
            self._loop.remove_reader(self._descriptor)
            self._socket.close()

    def _soon(self) -> None:
        """In the loop's next turn, and once: batches that each ask for another would be ever more."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        self._receive()

    def _receive(self) -> None:
        end = time.monotonic() + _BATCH_SECONDS
        for _ in range(_BATCH):
            if self._held or not self._receive_one():
                return
            if time.monotonic() > end:
                break
        self._soon()

    def _receive_one(self) -> bool:
        if self._socket.closed:
            return False
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        try:
            self._handle(frames)
        except BaseException:
            # the edge was taken: without this the rest would wait for the next message
            self._soon()
            raise
        return True
