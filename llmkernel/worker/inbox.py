"""What clients have sent and nobody has looked at yet: taken off the socket at once, handled in turn.

A client whose messages lie on the socket for longer than a heartbeat must not leave meanwhile:
ZeroMQ 4.3.5 ends the process where it would send a heartbeat on a connection that has ended
and is not read, because more than the high-water mark waits. So nothing lies there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import zmq

MAX_BYTES = 128 * 2**20
"""What may wait here; beyond that the socket is left alone, and whoever sends has to wait."""
_BATCH_SECONDS = 0.005
"""How long messages are handled in a row before the loop may do something else."""
_LONG_SECONDS = 0.02
"""What takes longer was a message of megabytes. Making objects of it held the interpreter, which the
engine's thread needs many times in a step; so it gets as much time before the next one."""


_OVERHEAD = 256
"""Bytes of a letter beside what it says: a flood of short ones would fill the memory, too."""
_SHORT = 4096
"""A message up to here is copied, which takes less than a frame of ZeroMQ's."""


class Letter(NamedTuple):
    """One message as it came."""

    routing_id: bytes
    principal: str
    said: bytes | zmq.Frame

    @classmethod
    def of(cls, routing_id: bytes, principal: str, frame: zmq.Frame) -> Letter:
        """Hold as little as can be of it."""
        said = frame.bytes if len(frame) <= _SHORT else frame
        return cls(routing_id, sys.intern(principal), said)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return _OVERHEAD + len(self.said)

    @property
    def data(self) -> bytes:
        """What was sent."""
        return self.said if isinstance(self.said, bytes) else self.said.bytes


class Inbox:
    """Hands out letters, those of one client in order, and clients take turns.

    `hold` is told to leave the socket alone while MAX_BYTES wait, and to go on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[Letter], None],
        hold: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._hold = hold
        self._held = False
        self._waiting: dict[bytes, deque[Letter]] = {}
        """By client, whose turn is next first; none is empty."""
        self._bytes = 0
        self._due = False

    def put(self, letter: Letter) -> None:
        """Handle a letter in the loop's next turn, or when it is due."""
        self._waiting.setdefault(letter.routing_id, deque()).append(letter)
        self._count(letter.size)
        self._soon()

    def forget(self, routing_id: bytes) -> None:
        """Its sender is gone: what it has sent is not looked at any more."""
        for letter in self._waiting.pop(routing_id, ()):
            self._count(-letter.size)

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Handle some, and rest as long as that took where it was long."""
        began, took = time.monotonic(), 0.0
        try:
            while self._waiting and took < _BATCH_SECONDS:
                self._handle(self._next())
                took = time.monotonic() - began
        finally:
            if took > _LONG_SECONDS:
                self._loop.call_later(took, self._go_on)
            else:
                self._go_on()

    def _go_on(self) -> None:
        self._due = False
        if self._waiting:
            self._soon()

    def _next(self) -> Letter:
        routing_id = next(iter(self._waiting))
        letters = self._waiting.pop(routing_id)
        letter = letters.popleft()
        if letters:
            self._waiting[routing_id] = letters  # behind the others
        self._count(-letter.size)
        return letter

    def _count(self, size: int) -> None:
        self._bytes += size
        full = self._bytes > (MAX_BYTES // 2 if self._held else MAX_BYTES)
        if full != self._held:
            self._held = full
            self._hold(full)
