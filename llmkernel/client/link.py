"""The way to one worker for any number of calls from any thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NoReturn

from llmkernel.client.background import Home, background
from llmkernel.client.calls import Call
from llmkernel.client.channel import SILENCE_SECONDS, Channel
from llmkernel.connection import Connection
from llmkernel.errors import ConnectionProblem


class Link:
    """A channel to a worker, as callers hold it; the channel ends with its last holder.

    May be used from any thread of the process that made it. A forked child gets
    ConnectionProblem and must make its own. It lives in `home`, by default on the one thread
    that this process has for all its links.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        silence: float = SILENCE_SECONDS,
        home: Home | None = None,
    ) -> None:
        self._closed = False
        self._home = home or background()
        self._channel = Channel(self._home, connection, silence)

    @property
    def connection(self) -> Connection:
        """Where the worker is, as last seen."""
        return self._channel.connection

    def start(self, call: Call) -> None:
        """Ask; the answer comes into the call's inbox. Raises ConnectionProblem after a fork."""
        self.check()
        if self._closed:
            raise ConnectionProblem("This client is closed. Make a new one: llmkernel.connect()")
        self._soon(self._channel.start, call)

    def check(self) -> None:
        """Raise ConnectionProblem after a fork: nothing arrives in the child."""
        if self._forked:
            raise ConnectionProblem(
                "This client was made before the process was forked. "
                "Make a new one here: llmkernel.connect()"
            )

    def __reduce__(self) -> NoReturn:
        raise ConnectionProblem(
            "A client stays in its process and cannot be pickled. In another one "
            f"connect there: llmkernel.connect({self.connection.name!r})"
        )

    def cancel(self, call: Call) -> None:
        """The caller does not want the answer any more; its last message still comes."""
        call.cancelled = True
        if call.outcome is None and not self._forked:
            self._soon(self._channel.cancel, call)

    def close(self) -> None:
        """End the connection; what is in flight is cancelled. Again is no error."""
        if not self._closed and not self._forked:
            self._closed = True
            self._soon(self._channel.close)

    @property
    def _forked(self) -> bool:
        return self._home.pid != os.getpid()

    def _soon(self, action: Callable[..., None], *values: Call) -> None:
        with contextlib.suppress(RuntimeError):  # the process is ending: nobody waits
            self._home.soon(action, *values)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # never began
            self.close()
