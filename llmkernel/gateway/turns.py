"""Many tasks on one loop: a few of them in each of its turns, so that nothing else waits for all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

_SLICE_SECONDS = 0.004
"""What goes on without waiting in one turn of the loop."""
_GROUP = 8
"""How many of those that wait go on in each turn; each takes a fraction of a millisecond."""


class Turns:
    """Lets tasks go on in the order in which they ask, a few milliseconds' worth at a time.

    A loop runs everything that is ready before it looks at timers and sockets again. Where a
    hundred streams become ready at once that is long, and this cuts it into turns. A loop
    that has little to do is not held up at all.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._end = 0.0
        """When the present slice is over, in the loop's time."""
        self._due = False
        """Whether the next turn is asked for."""

    async def take(self) -> None:
        """Go on at once where there is time left, else when it is this task's turn."""
        loop = asyncio.get_running_loop()
        if not self._is_free(loop):
            mine: asyncio.Future[None] = loop.create_future()
            self._waiting.append(partial(_resolve, mine))
            await mine

    def soon(self, action: Callable[..., None], *values: Any) -> None:
        """Do something when it is its turn, whose work comes later and cannot be timed."""
        self._is_free(asyncio.get_running_loop())  # so that there is a next turn
        self._waiting.append(partial(action, *values))

    def _is_free(self, loop: asyncio.AbstractEventLoop) -> bool:
        now = loop.time()
        if not self._due:
            self._begin(loop, now)
        return not self._waiting and now < self._end

    def _begin(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._due = True
        self._end = now + _SLICE_SECONDS
        loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """A new turn: it belongs to those that wait, if any do."""
        self._due = False
        if self._waiting:
            self._begin(loop, loop.time())
            for _ in range(min(_GROUP, len(self._waiting))):
                self._waiting.popleft()()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():  # its task was cancelled
        future.set_result(None)
