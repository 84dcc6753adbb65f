"""The worker's log file: one user's, bounded in size, and never a prompt or a key in it.

Standard output and error go to it as well when the worker has no terminal, so that
what a library or the interpreter says in its last moment is kept.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import logging.handlers
import os
import signal
import sys
from pathlib import Path

from llmkernel import environment, paths

MAX_BYTES = 5 * 2**20
BACKUPS = 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RotatingLog(logging.handlers.RotatingFileHandler):
    """A rotating file of mode 0600 that standard output and error may follow."""

    def __init__(self, path: Path, *, max_bytes: int, backups: int, capture: bool) -> None:
        self._capture = capture
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")

    def _open(self) -> io.TextIOWrapper:
        fd = paths.open_private(Path(self.baseFilename))
        if self._capture:
            os.dup2(fd, 1)
            os.dup2(fd, 2)
        return os.fdopen(fd, "a", encoding=self.encoding, errors="backslashreplace")


def configure(path: Path, *, capture: bool) -> None:
    """Log to `path`; with `capture` standard output and error go there, else the log goes to both.

    SIGUSR1 writes where each thread is to standard error, whatever the interpreter is busy with. It is for a
    worker that stands still: threads that run are read while they change, which has ended CPython 3.11.

    Raises InvalidRequest for a log level in the environment that there is none of.
    """
    level = environment.log_level()
    file = RotatingLog(path, max_bytes=MAX_BYTES, backups=BACKUPS, capture=capture)
    handlers: list[logging.Handler] = [file]
    if not capture:
        handlers.append(logging.StreamHandler())
    # libraries speak up only when something is wrong; their information is about themselves
    logging.basicConfig(format=_FORMAT, level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("llmkernel").setLevel(level)
    logging.captureWarnings(True)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)
