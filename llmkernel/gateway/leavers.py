"""Clients that leave although bytes of theirs are unread."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import contextmanager

from tornado.iostream import IOStream

_LOOK_SECONDS = 0.5
_LEFT = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset is seen


class Leavers:
    """Closes the connections of clients that are gone, while their requests run.

    tornado notices the end of a connection by reading. It does not read while it holds bytes that
    nobody has asked for, such as a line break after a body or the next request. The system is
    asked here instead, whatever waits to be read. One object for all requests of a loop.
    """

    def __init__(self) -> None:
        self._streams: set[IOStream] = set()
        """Where a request runs."""
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watch(self, stream: IOStream | None) -> Iterator[None]:
        """While the block runs, close the stream as soon as its other end is closed."""
        if stream is None or stream.closed():
            yield
            return
        self._streams.add(stream)
        if self._timer is None:
            self._look_later()
        try:
            yield
        finally:
            self._streams.discard(stream)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        poll = select.poll()
        files = {}
        for stream in self._streams:
            if not stream.closed():
                file = stream.socket.fileno()
                poll.register(file, _LEFT)  # errors and hang-ups are told in any case
                files[file] = stream
        for file, _ in poll.poll(0):
            files[file].close()
        if self._streams:
            self._look_later()
