"""A streamed answer: written as it comes, kept alive in pauses, cut where nobody reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from tornado.iostream import StreamClosedError

from llmkernel.errors import SlowConsumer
from llmkernel.gateway.dialects import sse
from llmkernel.gateway.record import Record

if TYPE_CHECKING:
    from tornado.web import RequestHandler

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


class Outflow:
    """The body of a streamed answer.

    A reader that is gone cancels the task that writes here (see handler.py); one that
    takes nothing for `write_seconds` gets SlowConsumer raised into that task.
    """

    def __init__(
        self,
        handler: RequestHandler,
        content_type: str,
        record: Record,
        *,
        write_seconds: float,
        idle: float,
    ) -> None:
        self._handler = handler
        self._record = record
        self._write_seconds = write_seconds
        self._idle = idle if content_type == EVENT_STREAM else 0.0
        self._timer: asyncio.TimerHandle | None = None
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
        await self._write(b"")

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait until the connection has taken what was there before."""
        await self._write(data)

    async def event(self, value: Any, name: str = "") -> None:
        """Send one server-sent event of JSON."""
        await self._write(sse(msgspec.json.encode(value), name))

    async def line(self, value: Any) -> None:
        """Send one line of JSON."""
        await self._write(msgspec.json.encode(value) + b"\n")

    async def done(self) -> None:
        """Send the marker that OpenAI's streams end with."""
        await self._write(b"data: [DONE]\n\n")

    def stop(self) -> None:
        """No more comments."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write(self, data: bytes) -> None:
        self.begun = True
        self.stop()
        if data:
            self._handler.write(data)
            if self._record.first_byte is None:
                self._record.first_byte = time.monotonic()
        flushing = self._handler.flush()
        if not flushing.done():
            await self._patiently(flushing)
        elif flushing.exception() is not None:
            raise asyncio.CancelledError
        self._later()

    async def _patiently(self, flushing: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._write_seconds):
                await asyncio.shield(flushing)
        except TimeoutError:
            raise SlowConsumer(
                f"Nothing was read for {self._write_seconds:g} s, so the stream was cut."
            ) from None
        except StreamClosedError:  # gone: the cancellation is on its way
            raise asyncio.CancelledError from None

    def _later(self) -> None:
        if self._idle:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle, self._comment)

    def _comment(self) -> None:
        self._handler.write(b":\n\n")
        flushed = self._handler.flush()
        flushed.add_done_callback(lambda future: future.exception())  # gone: told elsewhere
        self._later()
