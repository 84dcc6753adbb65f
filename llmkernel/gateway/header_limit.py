"""Headers that are too large are answered: tornado closes the connection without a word."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.iostream import IOStream, UnsatisfiableReadError

from llmkernel.gateway.dialects import ErrorBody, encode
from llmkernel.gateway.settings import MAX_HEADER_BYTES

_SECONDS = 2.0
_MOST_BYTES = 2**20
_MOST_AT_ONCE = 64
_BODY = encode(
    ErrorBody(f"The headers are larger than {MAX_HEADER_BYTES} bytes.", "headers_too_large")
)
"""The path was not read, so this is the gateway's own shape and not that of a dialect."""
_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Server: llmkernel\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


class HeadedStream(IOStream):
    """A connection that hands its socket to `on_wide` when the headers on it are too large."""

    def __init__(
        self, connection: socket.socket, on_wide: Callable[[socket.socket], None], **settings: Any
    ) -> None:
        super().__init__(connection, **settings)
        self._on_wide = on_wide
        self._in_headers = False

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Read headers: nothing else that tornado reads ends with a pattern."""
        self._in_headers = True
        return super().read_until_regex(regex, max_bytes)

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Read the length of a part of a body."""
        self._in_headers = False
        return super().read_until(delimiter, max_bytes)

    def close(self, exc_info: Any = False) -> None:
        """Close it; tornado says by `exc_info` that a limit was why."""
        if self._in_headers and isinstance(exc_info, UnsatisfiableReadError) and not self.closed():
            with contextlib.suppress(OSError):  # no more descriptors: without a word, then
                self._on_wide(self.socket.dup())
        super().close(exc_info)


class Farewells:
    """Connections that get this one answer and are closed, a bounded number for a bounded time."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, connection: socket.socket) -> None:
        """Answer on a connection, which is closed afterwards."""
        if len(self._tasks) >= _MOST_AT_ONCE:
            connection.close()
            return
        task = asyncio.create_task(_say(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: connection.close())

    async def close(self) -> None:
        """Cut those that are left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _say(connection: socket.socket) -> None:
    """Answer, then read what still comes: closed before, the answer would be lost to a reset."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        async with asyncio.timeout(_SECONDS):
            await loop.sock_sendall(connection, _ANSWER)
            connection.shutdown(socket.SHUT_WR)
            left = _MOST_BYTES
            while left > 0 and (part := await loop.sock_recv(connection, 65536)):
                left -= len(part)
