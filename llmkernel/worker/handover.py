"""The events of steps on their way from the engine's thread to the front's loop.

An engine that is faster than the loop would otherwise be further ahead with each turn of it: the
loop finds more steps than the last time, takes longer, and meanwhile there are more again. And the
loop is woken once for all steps that wait: asyncio wakes it through the pipe that signals come
through as well, which holds a few hundred wake-ups, and loses a signal that finds it full.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from llmkernel.worker.sequence import EngineEvent

MOST_STEPS = 64
"""Steps that may wait: more than a busy moment of the loop, less than anybody would notice."""
MOST_SECONDS = 1.0
"""How long the engine waits for the loop; one that is held for longer must not stop it for good."""
_TURN_SECONDS = 0.005
"""How long events are delivered in a row before the loop may do something else."""


class Handover:
    """Calls `deliver(events)` on `loop` with the events of each step, in their order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[list[EngineEvent]], None],
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._waiting: deque[list[EngineEvent]] = deque()
        self._changed = threading.Condition()
        self._due = self._closed = False

    def put(self, events: list[EngineEvent]) -> None:
        """Deliver the events of a step soon; wait while too many steps do. Any thread."""
        with self._changed:
            if not self._on_loop():
                self._changed.wait_for(self._has_room, MOST_SECONDS)
            if self._closed:
                return
            self._waiting.append(events)
            if self._due:
                return
            self._due = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is served
            self._loop.call_soon_threadsafe(self._turn)

    def close(self) -> None:
        """Deliver nothing more, and let nobody wait."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _turn(self) -> None:
        end = time.monotonic() + _TURN_SECONDS
        try:
            while (events := self._take()) is not None:
                self._deliver(events)
                if time.monotonic() > end:
                    break
            else:
                return
        except BaseException:
            self._loop.call_soon(self._turn)  # for the steps that are left
            raise
        self._loop.call_soon(self._turn)

    def _take(self) -> list[EngineEvent] | None:
        """The events of the next step; None, and no turn is due any more, where none waits."""
        with self._changed:
            self._due = bool(self._waiting)
            self._changed.notify_all()
            return self._waiting.popleft() if self._due else None

    def _has_room(self) -> bool:
        return self._closed or len(self._waiting) < MOST_STEPS

    def _on_loop(self) -> bool:
        """Whether the loop itself asks, which must not wait for itself."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
