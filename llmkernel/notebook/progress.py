"""How far a worker is with loading its model, as one output that changes."""

from __future__ import annotations

import time
from typing import Any

from llmkernel.notebook import publisher
from llmkernel.notebook.inline import escape
from llmkernel.notebook.pace import Pace
from llmkernel.notebook.tables import MARKDOWN, PLAIN, Bundle
from llmkernel.notebook.untrusted import plain
from llmkernel.progress import TITLES, ProgressBar
from llmkernel.protocol import Progress
from llmkernel.units import size

_WIDTH = 24


class LoadProgress:
    """A bar in the output of the cell while a worker starts; use it in a `with` statement.

    In the end the bar gives way to one line, so that a saved notebook says what was loaded
    and not how.
    """

    def __init__(self, shell: Any) -> None:
        self._mode = publisher.mode(shell)
        self._display = publisher.Display(shell)
        self._pace = Pace()
        self._stage = ""
        self._bar = ProgressBar()

    def show(self, progress: Progress) -> None:
        """Take in one message of a worker or of a download."""
        if self._mode == "terminal":
            self._bar.show(progress)
        elif self._mode == "live":
            now = time.monotonic()
            if progress.stage != self._stage or not self._pace.wait(now):
                self._stage = progress.stage
                self._display.publish({PLAIN: line(progress)})
                self._pace.shown(now, time.monotonic(), 0)

    def done(self, text: str) -> None:
        """The worker is ready; `text` says what it is."""
        self._bar.__exit__(None, None, None)
        if self._mode == "terminal":
            print(text)
        else:
            self._display.publish(_bundle(text))

    def failed(self) -> None:
        """It did not work; the exception says why, and the bar goes away."""
        self._bar.__exit__(None, None, None)
        if self._stage and self._mode == "live":
            stage = TITLES.get(self._stage, self._stage)
            self._display.publish({PLAIN: f"Stopped while {stage}."})


def line(progress: Progress) -> str:
    """One line with a bar where the end is known."""
    title = TITLES.get(progress.stage, progress.stage)
    detail = f" {plain(progress.detail)}" if progress.detail else ""
    amount = size if progress.unit == "bytes" else str
    if not progress.total:
        return f"{title}{detail}" + (f": {amount(progress.done)}" if progress.done else " …")
    share = min(1.0, progress.done / progress.total)
    bar = ("█" * round(share * _WIDTH)).ljust(_WIDTH, "░")
    unit = "" if progress.unit in ("bytes", "") else f" {progress.unit}"
    return f"{title} {bar} {share:4.0%}  {amount(progress.done)} of {amount(progress.total)}{unit}{detail}"


def _bundle(text: str) -> Bundle:
    return {MARKDOWN: escape(text), PLAIN: plain(text)}
