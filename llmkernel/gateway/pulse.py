"""How long the gateway's loop was held up: a timer that is late by as much.

On a busy machine a timer is late because others have the processor, too; the processor
time that the loop's thread used between two beats tells the two apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

BEAT_SECONDS = 0.01


class Pulse:
    """Beats on the loop; what it keeps is the worst since it was last asked."""

    def __init__(self) -> None:
        self._late = 0.0
        self._busy = 0.0
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._beating = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """No more."""
        if self._beating is not None:
            self._beating.cancel()

    def take_late(self) -> float:
        """Seconds of the longest delay since the last question."""
        worst, self._late = self._late, 0.0
        return worst

    def take_busy(self) -> float:
        """The most processor seconds of the loop's thread between two beats."""
        worst, self._busy = self._busy, 0.0
        return worst

    async def _beat(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                before, used = time.monotonic(), time.thread_time()
                await asyncio.sleep(BEAT_SECONDS)
                self._late = max(self._late, time.monotonic() - before - BEAT_SECONDS)
                self._busy = max(self._busy, time.thread_time() - used)
