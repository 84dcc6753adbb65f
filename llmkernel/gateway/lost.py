"""Workers that were served here and ended without having been told to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from llmkernel import connection as files
from llmkernel.connection import Connection
from llmkernel.errors import LLMKernelError, Unavailable

_DOUBT_SECONDS = 3.0
"""How long after its end a worker may turn out to have been killed on purpose."""


class Lost:
    """Remembers them until they run again, so that their models are not taken for unknown ones."""

    def __init__(self) -> None:
        self._workers: dict[str, tuple[Connection, float]] = {}
        """By name, with the time until which the end may turn out to have been on purpose."""

    def add(self, connection: Connection, *, certain: bool) -> None:
        """A worker that ended; `certain` where it said why."""
        doubt = 0.0 if certain else _DOUBT_SECONDS
        self._workers[connection.name] = connection, time.monotonic() + doubt

    def forget(self, name: str) -> None:
        """It runs again, or was ended on purpose."""
        self._workers.pop(name, None)

    @property
    def doubtful(self) -> list[Connection]:
        """Those whose end is so new that `llmkernel stop --kill` may still be clearing up."""
        now = time.monotonic()
        return [connection for connection, until in self._workers.values() if now < until]

    def error(self, asked: str | None) -> Unavailable | None:
        """What to tell who asks for a worker's name or its model's id, or for any with None.

        None where it is not of these workers.
        """
        for connection, _ in self._workers.values():
            if asked in (None, connection.name, connection.model):
                return Unavailable(
                    f"The worker {connection.name!r} has died and does not run again yet. "
                    f"`llmkernel logs {connection.name}` shows what it wrote, "
                    "`llmkernel start` starts it again."
                )
        return None


def left_behind(connections: Iterable[Connection]) -> set[str]:
    """The instances whose connection file is still there. Reads files: call it off the loop.

    A worker that ends as it should removes its file, and so does whoever kills it on purpose.
    """
    return {each.instance for each in connections if _has_file(each)}


def _has_file(connection: Connection) -> bool:
    with contextlib.suppress(LLMKernelError, OSError):
        return files.is_current(connection)
    return False
