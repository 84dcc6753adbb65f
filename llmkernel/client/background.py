"""The one private thread per process on which all links of this process live."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading

import zmq


class Background:
    """An asyncio loop in a daemon thread, and the ZeroMQ context of its sockets."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, _SOCKETS)
        # not the policy's kind of loop: ZeroMQ needs one that watches descriptors
        self.loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name="llmkernel-link", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.context.destroy(linger=0)
        self.loop.close()

    def stop(self) -> None:
        """End the thread and close every socket; for the end of the process."""
        with contextlib.suppress(RuntimeError):  # stopped before
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=1.0)


_SOCKETS = 16384
"""A connection takes three; ZeroMQ's own bound is 1023."""
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
