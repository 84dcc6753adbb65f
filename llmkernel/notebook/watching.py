"""`%llm status --watch`: the card of a worker that changes in its place while the cell runs."""

from __future__ import annotations

import time
from typing import Any

from llmkernel.connection import Connection
from llmkernel.errors import WorkerDied, WorkerUnresponsive
from llmkernel.notebook import failures, publisher
from llmkernel.notebook.card import card, line
from llmkernel.protocol import StatusReport
from llmkernel.report import PATIENCE
from llmkernel.watcher import Watcher

_EVERY = {"live": 0.3, "terminal": 1.0}
"""Seconds between two looks."""


def watch(shell: Any, worker: Connection, seconds: float) -> None:
    """Show the card, for `seconds` or until the cell is interrupted where they are 0.

    Where outputs are published once it is shown once, at once. Raises WorkerDied.
    """
    mode = publisher.mode(shell)
    display = publisher.Display(shell)
    end = time.monotonic() + seconds if seconds else None
    try:
        with Watcher(worker) as watcher:
            while True:
                began = time.monotonic()
                report = _look(watcher, worker)
                if mode == "terminal":
                    publisher.write(f"{line(report)}\n")
                else:
                    display.publish(card(worker, report))
                if mode == "once" or (end is not None and began >= end):
                    return
                time.sleep(_EVERY[mode] if end is None else min(_EVERY[mode], end - began))
    except KeyboardInterrupt as stop:
        failures.shorten(stop)
        raise


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
