"""Counting what goes wrong without letting it fill the log."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger(__name__)


class Tally:
    """Counts occurrences of `what` and says so in the log, at most once in `seconds`."""

    def __init__(self, what: str, seconds: float = 10.0) -> None:
        self.count = 0
        self._what = what
        self._seconds = seconds
        self._next = 0.0

    def add(self) -> None:
        """One more."""
        self.count += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            _log.warning("%s (%d so far)", self._what, self.count)
