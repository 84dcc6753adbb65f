"""A worker process that this process has just started, until it is ready or gone.

The worker detaches (its own session, no parent among notebooks), so it cannot be
waited for. Instead it holds the writing end of a pipe: the lines in it say who it
is and why it failed, and its end says that the worker is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import llmkernel
from llmkernel import connection, environment, paths
from llmkernel.config import WorkerConfig
from llmkernel.errors import LLMKernelError, StartFailed, from_code
from llmkernel.lock import NameLock
from llmkernel.processes import Identity

_LOG_LINES = 15
_LOG_BYTES = 2**18
_CLOSED = -1
_TROUBLE = re.compile("error|traceback|fatal|critical|exception", re.IGNORECASE)
_STOP_SECONDS = 5.0


class Report(msgspec.Struct, omit_defaults=True):
    """A line in the pipe: first who the worker is, last that it is ready or why it is not."""

    process: Identity | None = None
    ready: bool = False
    code: str = ""
    message: str = ""
    data: dict[str, Any] = {}


class Child:
    """The started process; what is known of it is up to date after `listen`."""

    def __init__(self, config: WorkerConfig) -> None:
        self.name = config.name
        self.log = paths.log_path(config.name)
        self.process: Identity | None = None
        self.failure: LLMKernelError | None = None
        self._ready = False
        self._pipe_ended = False
        self._config = config
        self._pipe, self._writing = os.pipe()
        self._unread = b""
        self._log_start = _size(self.log)

    def spawn(self, lock: NameLock) -> None:
        """Start the process, which goes on holding `lock`.

        Raises StartFailed if that cannot be done. Call it once; after an error or an
        interrupt `stop` ends whatever has come of it.
        """
        try:
            log = paths.open_private(self.log)
            try:
                self._run(lock, log)
            finally:
                os.close(log)
        except OSError as error:
            raise StartFailed(f"The worker could not be started: {error}.") from error
        finally:
            self._close_writing()
            lock.hand_over()

    def _run(self, lock: NameLock, log: int) -> None:
        # -P: the folder that a notebook is in must not shadow what the worker imports
        command = [sys.executable, "-P", "-m", "llmkernel.worker"]
        command += ["--lock-fd", str(lock.fd), "--report-fd", str(self._writing)]
        starter = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fd, self._writing),
            start_new_session=True,
            env=environment.for_worker() | _import_path(),
        )
        try:
            # not in the arguments, which everybody on the machine may read
            with contextlib.suppress(BrokenPipeError):
                starter.communicate(msgspec.json.encode(self._config))
        except BaseException:
            starter.kill()
            starter.wait()
            raise

    @property
    def gone(self) -> bool:
        """Whether the process has ended. A ready worker closes its pipe and lives on."""
        if self._ready and self.process is not None:
            return not self.process.alive
        return self._pipe_ended

    def listen(self, seconds: float) -> None:
        """Wait up to `seconds` for news from the worker."""
        if self._pipe_ended:
            time.sleep(0 if self.gone else seconds)
        elif select.select([self._pipe], [], [], seconds)[0]:
            self._read()

    def _read(self) -> None:
        data = os.read(self._pipe, 65536)
        self._pipe_ended = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._take(msgspec.json.decode(line, type=Report))

    def _take(self, report: Report) -> None:
        self.process = report.process or self.process
        self._ready = self._ready or report.ready
        if report.code:
            self.failure = from_code(report.code, report.message, report.data)

    def wait(self, seconds: float) -> bool:
        """Wait for the process to be gone; False if it is still there after `seconds`."""
        deadline = time.monotonic() + seconds
        self.listen(0.0)
        while not self.gone and (left := deadline - time.monotonic()) > 0:
            self.listen(min(left, 0.05))
        return self.gone

    def why(self, what: str = "ended before it was ready") -> LLMKernelError:
        """The error for a worker that did not come up: its own report, else its log."""
        told = self._told()
        killed = (
            ""
            if _TROUBLE.search(told)
            else " It tells of no error, so it was killed, perhaps for lack of memory."
        )
        return self.failure or StartFailed(
            f"The worker {self.name!r} {what}.{killed} Its log, {self.log}:\n{told}"
        )

    def stop(self) -> None:
        """End the worker, gently at first, and leave no file behind."""
        self._close_writing()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.process is None and not self.gone and time.monotonic() < deadline:
            self.listen(0.05)  # it says who it is as soon as it runs
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.wait(0.0) and self.process is not None and self.process.alive:
                os.kill(self.process.pid, number)
                self.wait(_STOP_SECONDS)
        connection.clear(self.name, patience=1.0)

    def close(self) -> None:
        """Stop listening; the worker goes on."""
        self._close_writing()
        os.close(self._pipe)

    def _close_writing(self) -> None:
        """Leave the writing end to the worker alone, so that the pipe ends with it."""
        fd, self._writing = self._writing, _CLOSED
        if fd != _CLOSED:
            os.close(fd)

    def _told(self) -> str:
        """What this start has written: the first lines, where a crash says what it is, and the last."""
        try:
            with self.log.open("rb") as file:
                # a log that has been rotated since is shorter than it was
                start = self._log_start if self._log_start <= file.seek(0, os.SEEK_END) else 0
                file.seek(start)
                lines = file.read(_LOG_BYTES).decode(errors="replace").splitlines()
        except OSError as error:
            return f"(unreadable: {error.strerror})"
        if len(lines) > 2 * _LOG_LINES:
            lines[_LOG_LINES:-_LOG_LINES] = ["..."]
        return "\n".join(lines) or "(nothing was written)"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _import_path() -> dict[str, str]:
    """Lets the worker import this very package where it is not installed but on sys.path."""
    root = str(Path(llmkernel.__file__).parent.parent)
    if root in [*site.getsitepackages(), site.getusersitepackages()]:
        return {}
    given = environment.for_worker().get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([root, given] if given else [root])}
