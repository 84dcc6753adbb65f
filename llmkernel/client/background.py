"""Where links live: the one private thread of this process, or a loop that serves anyway."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import zmq

LAST_SECONDS = 0.2
"""In which a link that is closed may still tell its worker that it wants nothing more."""


class Home(Protocol):
    """A loop that watches descriptors, and the ZeroMQ context of the sockets on it."""

    pid: int
    """The process that made it; a forked child has no use for it."""
    context: zmq.Context[zmq.Socket[bytes]]
    loop: asyncio.AbstractEventLoop

    def soon(self, action: Callable[..., None], *values: Any) -> None:
        """Have the loop do something. Any thread. Raises RuntimeError once it is closed."""


class Here:
    """The running loop as a home: nothing hops between threads.

    For a process whose loop does little else, as a gateway's: what blocks the loop holds up
    its links too. `close` once no link lives here any more.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.context = _context()
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def soon(self, action: Callable[..., None], *values: Any) -> None:
        """Have the loop do something. Any thread. Raises RuntimeError once it is closed."""
        if threading.get_ident() == self._thread:
            self.loop.call_soon(action, *values)
        else:
            self.loop.call_soon_threadsafe(action, *values)

    async def close(self) -> None:
        """Close every socket, once links that were closed have said what they still had to."""
        await asyncio.sleep(0)  # they begin in the next turn
        await asyncio.sleep(LAST_SECONDS)
        self.context.destroy()


class Background:
    """An asyncio loop in a daemon thread, and the ZeroMQ context of its sockets."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.context = _context()
        # not the policy's kind of loop: ZeroMQ needs one that watches descriptors
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name="llmkernel-link", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.context.destroy(linger=0)
        self.loop.close()

    def soon(self, action: Callable[..., None], *values: Any) -> None:
        """Have the loop do something. Any thread. Raises RuntimeError once it is closed."""
        self.loop.call_soon_threadsafe(action, *values)

    def stop(self) -> None:
        """End the thread and close every socket; for the end of the process."""
        with contextlib.suppress(RuntimeError):  # stopped before
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=1.0)


_SOCKETS = 16384
"""A connection takes three; ZeroMQ's own bound is 1023."""


def _context() -> zmq.Context[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, _SOCKETS)
    return context


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """The background of this process, started on first use and again after a fork."""
    global _background  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _background is None:
            _background = Background()
        return _background


def _forget() -> None:
    """A forked child has the objects but not the thread: it starts anew."""
    global _background, _lock
    _background, _lock = None, threading.Lock()


def _stop() -> None:
    if _background is not None and _background.pid == os.getpid():
        _background.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)
