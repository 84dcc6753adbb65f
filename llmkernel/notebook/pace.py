"""When a growing text is shown again.

Each update sends the whole text, so at a fixed rate the traffic and the work of the browser
would grow with the square of its length. The first token is shown at once; after that the
time between two updates grows with the text and with what showing it took.
"""

from __future__ import annotations

SHORTEST = 0.04
"""Seconds between two updates: 25 a second at most."""
_LONGEST = 1.0
_CHARACTERS_PER_SECOND = 60_000
"""Sent to the browser at most, as Markdown; it has been measured to keep up with that."""
_SHARE = 4.0
"""Showing takes a quarter of the time at most."""


class Pace:
    """The schedule of one output. Times are seconds on a monotonic clock."""

    def __init__(self) -> None:
        self._due = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next update may be made."""
        return max(0.0, self._due - now)

    def shown(self, began: float, ended: float, characters: int) -> None:
        """An update of so many characters was made."""
        interval = max(characters / _CHARACTERS_PER_SECOND, (ended - began) * _SHARE)
        self._due = began + min(max(interval, SHORTEST), _LONGEST)
