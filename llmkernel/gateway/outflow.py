"""A streamed answer: written as it comes, kept alive in pauses, cut where nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.iostream import IOStream

from llmkernel.errors import SlowConsumer
from llmkernel.gateway.dialects import line, sse
from llmkernel.gateway.record import Record
from llmkernel.gateway.turns import Turns
from llmkernel.gateway.unread import taken

if TYPE_CHECKING:
    from tornado.web import RequestHandler

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"
MOST_UNSENT = 64 * 1024
"""Bytes that may wait for a reader before the answer is not read on."""
_IN_SYSTEM = 16 * 1024
"""Bytes that the system may hold unsent beside them: it tells of room by halves of that."""
_PROGRESS = 0.25
"""Seconds between two looks at what a slow reader has taken."""


class Outflow:
    """The body of a streamed answer.

    What is written goes out together at the end of the loop's turn: a stream that is behind
    sends all it has at once. A reader that is gone cancels the task that writes here
    (see handler.py); one that takes nothing at all for `write_seconds` gets SlowConsumer
    raised into that task.
    """

    def __init__(
        self,
        handler: RequestHandler,
        content_type: str,
        record: Record,
        turns: Turns,
        *,
        write_seconds: float,
        idle: float,
    ) -> None:
        self._handler = handler
        self._record = record
        self._turns = turns
        self._write_seconds = write_seconds
        self._idle = idle if content_type == EVENT_STREAM else 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._flushing: asyncio.Future[None] | None = None
        self._unsent = 0
        """Bytes that were written here and not handed over."""
        self._stream = getattr(handler.request.connection, "stream", None)
        _keep_little(self._stream)
        self._quiet = False
        """Whether nothing was written since the timer last looked."""
        self.begun = False
        handler.set_header("Content-Type", content_type)
        handler.set_header("Cache-Control", "no-cache")
        handler.set_header("X-Accel-Buffering", "no")

    def headers(self, headers: Mapping[str, str]) -> None:
        """More headers, before the first write."""
        for name, value in headers.items():
            self._handler.set_header(name, value)

    async def open(self) -> None:
        """Send the headers now, so that the client knows that its request was taken."""
        await self.write(b"")

    async def event(self, value: Any, name: str = "") -> None:
        """Send one server-sent event of JSON."""
        await self.write(sse(msgspec.json.encode(value), name))

    async def line(self, value: Any) -> None:
        """Send one line of JSON."""
        await self.write(line(msgspec.json.encode(value)))

    async def done(self) -> None:
        """Send the marker that OpenAI's streams end with."""
        await self.write(b"data: [DONE]\n\n")

    async def write(self, data: bytes) -> None:
        """Send bytes. Waits while the reader has too much that it has not read."""
        self._begin()
        if data:
            self._handler.write(data)
            self._unsent += len(data)
            if self._record.first_byte is None:
                self._record.first_byte = time.monotonic()
        if self._soon is None:
            self._soon = self._loop.call_soon(self._flush)
        if self._busy and self._waiting > MOST_UNSENT:
            await self._patiently()
        else:
            await self._turns.take()
        if self._broken:
            raise asyncio.CancelledError  # gone: what cancels this task is on its way

    def stop(self) -> None:
        """Nothing more will be written."""
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        self._idle = 0.0

    @property
    def _busy(self) -> bool:
        return self._flushing is not None and not self._flushing.done()

    @property
    def _broken(self) -> bool:
        sent = self._flushing
        return sent is not None and sent.done() and sent.exception() is not None

    def _begin(self) -> None:
        self._quiet = False
        if not self.begun:
            self.begun = True
            self._look_later()

    def _flush(self) -> None:
        """Hand over what was written; it stays here while an earlier part is on its way."""
        self._soon = None
        if self._busy:
            assert self._flushing is not None, "it is busy"
            self._flushing.add_done_callback(self._flush_again)
        else:
            self._flushing = self._handler.flush()
            self._unsent = 0

    def _flush_again(self, sent: asyncio.Future[None]) -> None:
        if sent.exception() is None and self._soon is None and not self._handler._finished:
            self._flush()

    async def _patiently(self) -> None:
        """Wait for room. What counts as reading is that bytes were taken, however few."""
        before, since = self._taken, self._loop.time()
        while self._busy and self._waiting > MOST_UNSENT:
            assert self._flushing is not None, "it is busy"
            await asyncio.wait({self._flushing}, timeout=min(_PROGRESS, self._write_seconds / 4))
            if self._taken != before:
                before, since = self._taken, self._loop.time()
            elif self._busy and self._loop.time() - since >= self._write_seconds:
                raise SlowConsumer(
                    f"Nothing was read for {self._write_seconds:g} s, so the stream was cut."
                )

    @property
    def _waiting(self) -> int:
        """Bytes that wait for the reader here: written and not yet handed over, and handed over."""
        if self._stream is None or self._stream.closed():
            return self._unsent
        return self._unsent + int(self._stream._total_write_index) - self._taken

    @property
    def _taken(self) -> int:
        return taken(self._stream)

    def _look_later(self) -> None:
        if self._idle:
            self._timer = self._loop.call_later(self._idle / 2, self._look)

    def _look(self) -> None:
        """Send a comment where nothing else was sent for a while."""
        if self._quiet and not self._busy and self._soon is None:
            self._handler.write(b":\n\n")
            self._flush()
        self._quiet = True
        self._look_later()


def _keep_little(stream: IOStream | None) -> None:
    """Have the system hold little that is unsent, or it takes megabytes and then nothing for long.

    Without that option, or on a socket that is none of TCP's, a slow reader is seen less well.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if stream is not None and not stream.closed() and option is not None:
        with contextlib.suppress(OSError):
            stream.socket.setsockopt(socket.IPPROTO_TCP, option, _IN_SYSTEM)
