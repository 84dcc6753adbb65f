"""`%llm status`: the card of a worker, which changes in its place.

With `--watch` the cell runs as long as it does; without, a thread brings it up to date for a while.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

from llmkernel.connection import Connection
from llmkernel.errors import LLMKernelError, WorkerDied, WorkerUnresponsive
from llmkernel.notebook import publisher
from llmkernel.notebook.card import card, gone, line
from llmkernel.notebook.tables import PLAIN
from llmkernel.protocol import StatusReport
from llmkernel.report import PATIENCE, ask
from llmkernel.watcher import Watcher

_EVERY = {"live": 0.3, "terminal": 1.0}
"""Seconds between two looks."""
WITHOUT_END = 1e9
"""Seconds that nobody watches for."""
FOLLOWED_SECONDS = 600.0
"""How long a card is brought up to date behind its cell; then it says when it was right."""
_BUSY_SECONDS, _IDLE_SECONDS = 1.0, 2.0


def watch(shell: Any, worker: Connection, seconds: float) -> None:
    """Show the card, for `seconds` or until the cell is interrupted.

    Where outputs are published once it is shown once, at once. Raises WorkerDied.
    """
    mode = publisher.mode(shell)
    display = publisher.Display(shell)
    end = time.monotonic() + seconds
    with Watcher(worker) as watcher:
        while True:
            began = time.monotonic()
            report = _look(watcher, worker)
            if mode == "terminal":
                publisher.write(f"{line(report)}\n")
            else:
                display.publish(card(worker, report))
            if mode == "once" or began >= end:
                return
            time.sleep(min(_EVERY[mode], end - began))


class Following:
    """A card that goes on changing when its cell has ended: for ten minutes, or until `end`.

    It is published again only where it says something else.
    """

    def __init__(self, shell: Any, worker: Connection) -> None:
        self._worker = worker
        self._display = publisher.Display(shell)
        self._over = threading.Event()
        self._shown = ""
        self._publish(ask(worker))
        # the copy holds which cell the output belongs to
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._follow,), name="llmkernel-card", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Leave the card as it is. Any thread."""
        self._over.set()

    def _follow(self) -> None:
        end = time.monotonic() + FOLLOWED_SECONDS
        try:
            with Watcher(self._worker) as watcher:
                pause = _BUSY_SECONDS
                while not self._over.wait(pause):
                    report = _look(watcher, self._worker)
                    busy = report.load.running or report.load.waiting
                    pause = _BUSY_SECONDS if busy else _IDLE_SECONDS
                    if time.monotonic() >= end:
                        self._publish(report, as_of=time.strftime("%H:%M"))
                        return
                    self._publish(report)
        except LLMKernelError:
            if not self._over.is_set():
                self._display.publish(gone(self._worker, time.strftime("%H:%M")))

    def _publish(self, report: StatusReport, as_of: str = "") -> None:
        bundle = card(self._worker, report, as_of)
        if bundle[PLAIN] != self._shown:
            self._display.publish(bundle)
        self._shown = bundle[PLAIN]


def _look(watcher: Watcher, worker: Connection) -> StatusReport:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return watcher.status(min(0.5, PATIENCE))
        except WorkerUnresponsive:
            if not worker.alive:
                raise WorkerDied(f"The worker {worker.name!r} has left.") from None
            if time.monotonic() > deadline:
                raise
