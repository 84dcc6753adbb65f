"""Where a question stands in the queue of its worker, as it moves up."""

from __future__ import annotations

from llmkernel.protocol import StatusReport


class Place:
    """The place of one question, at most as many as were ahead of it when the worker took it.

    The worker says that number once. What it counts afterwards brings it up to date: each request
    that ended made room for one that waited, and no more are ahead than wait. Clients take turns,
    so it is a good guess and no promise.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None
        self._before: StatusReport | None = None
        self._ended: int | None = None

    def ahead(self, position: int, report: StatusReport | None) -> int:
        """How many are ahead now; `position` were when it was taken, `report` is the latest."""
        if self._ahead is None:  # what was reported so far may be older than the question
            self._ahead, self._before = position, report
        if report is None or report is self._before:
            return self._ahead
        load = report.load
        ended = load.requests_finished + load.requests_failed
        if self._ended is None:
            self._ended = ended
        left = position - (ended - self._ended)
        self._ahead = max(0, min(self._ahead, left, load.waiting - 1))
        return self._ahead
