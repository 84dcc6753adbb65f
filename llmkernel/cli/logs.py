"""`llmkernel logs`."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from llmkernel import connection, paths
from llmkernel.cli import console
from llmkernel.cli.failure import Command
from llmkernel.cli.names import worker_argument
from llmkernel.errors import WorkerNotFound

_POLL = 0.2


@click.command("logs", cls=Command)
@worker_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the worker leaves.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="Lines to show of what is there.",
)
def logs_command(name: str | None, follow: bool, lines: int) -> None:
    """Show what a worker wrote; the last one's where none runs."""
    found = connection.last_log() if name is None else name
    path = paths.log_path(found)
    if not path.exists():
        raise WorkerNotFound(f"There is no log of a worker {found!r}.")
    with contextlib.closing(_Log(path)) as log:
        console.write("".join(deque(log.file, maxlen=lines)), untrusted=True)
        if follow:
            for text in log.growth(found):
                console.write(text, untrusted=True)


class _Log:
    """A log file that may be rotated while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = self._open()

    def growth(self, name: str) -> Iterator[str]:
        """What is added until the worker `name` has left."""
        while True:
            alive = connection.running(name) is not None
            if text := self.file.read():
                yield text
            elif self._rotated():
                self.file.close()
                self.file = self._open()
            elif not alive:
                return
            else:
                time.sleep(_POLL)

    def close(self) -> None:
        """Close the file that is open now."""
        self.file.close()

    def _open(self) -> TextIO:
        return self.path.open(encoding="utf-8", errors="replace")

    def _rotated(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False  # between the two steps of a rotation
