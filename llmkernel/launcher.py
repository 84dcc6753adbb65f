"""Start a worker or attach to the one that runs; relay its loading; stop it.

Whoever gets the lock on the name starts the worker and hands the lock down to it;
everybody else waits for the connection file and attaches. So any number of
simultaneous starts make one worker.

A start that is interrupted or runs out of time ends the worker that it started
itself and that is not ready yet: nobody would be left who waits for it. A worker
that somebody else started is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from llmkernel import conflict, paths, protocol
from llmkernel import connection as files
from llmkernel.child import Child
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from llmkernel.errors import (
    ProtocolMismatch,
    StartFailed,
    WorkerUnresponsive,
    from_code,
)
from llmkernel.lock import NameLock
from llmkernel.watcher import Watcher

OnProgress = Callable[[protocol.Progress], None]

DRAIN_SECONDS = 30.0
"""How long a worker that was asked to stop may finish what runs."""
_POLL = 0.05
_SILENCE = 10.0
"""Seconds without news after which the state is asked for again, on a fresh connection."""
_QUIET = 3.0
"""Seconds without any answer after which whoever waits is told that the worker is silent."""
_PATIENCE = 60.0
"""Seconds that a worker may take to come up before its model loads, or to say hello."""


def start(
    config: WorkerConfig,
    *,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> Connection:
    """The connection to a ready worker of this configuration, started where none runs; see `begin`."""
    return begin(config, on_progress=on_progress, timeout=timeout)[0]


def begin(
    config: WorkerConfig,
    *,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> tuple[Connection, bool]:
    """The connection to a ready worker of this configuration, and whether it was started here.

    Attaches to a running worker of that name. `on_progress` is called in this thread
    for each step of loading; `timeout` in seconds covers everything and is off by
    default, since a model may have to be downloaded.

    Raises ConfigurationConflict if that worker runs with other settings than those
    asked for; StartFailed and what is below it for a model that cannot be loaded, a
    worker that ends early or a time-out; WorkerUnresponsive for one that does not answer.
    """
    config = _with_whole_path(config)
    wait = _Wait(on_progress or _ignore, timeout)
    while True:
        running = files.running(config.name)
        if running is not None:
            if _attach(config, running, wait):
                return running, False
        elif (lock := NameLock.take(paths.lock_path(config.name))) is None:
            wait.for_the_lock(config.name)
        else:
            with lock:  # given back whatever happens, unless a worker has taken it over
                if files.running(config.name) is None:
                    return _launch(config, lock, wait), True
            time.sleep(_POLL)  # its lock file was removed; the worker there takes the name back


def stop(connection: Connection, *, drain: bool = True, timeout: float = 40.0) -> None:
    """End a worker by signal and wait until it is gone; no error if it is gone already.

    With `drain` it finishes what runs first, 30 s at most. Raises WorkerUnresponsive if
    it is still there after `timeout` seconds.
    """
    _signal(connection, signal.SIGTERM if drain else signal.SIGQUIT)
    if not _gone(connection, timeout):
        raise WorkerUnresponsive(
            f"The worker {connection.name!r} (process {connection.pid}) has not left within "
            f"{timeout:g} s. End it with: llmkernel stop --kill {connection.name}"
        )


def kill(connection: Connection) -> None:
    """End a worker that does not answer, at once, and remove what it leaves."""
    _signal(connection, signal.SIGKILL)
    if not _gone(connection, 10.0):
        raise WorkerUnresponsive(
            f"Process {connection.pid} of the worker {connection.name!r} cannot be killed; "
            "the system holds it, perhaps in a driver."
        )
    files.clear(connection.name, patience=1.0)


class _Wait:
    """What one start is waiting for, for how long, and whom it tells."""

    def __init__(self, on_progress: OnProgress, timeout: float | None) -> None:
        self.on_progress = on_progress
        self._timeout = timeout
        self._started = time.monotonic()
        self._locked_since: float | None = None

    def check(self) -> None:
        """Raise StartFailed once the time is up."""
        if self._timeout is not None and time.monotonic() - self._started > self._timeout:
            raise StartFailed(
                f"The worker was not ready within {self._timeout:g} s. Give more time, or see "
                "in its log how far it came."
            )

    def for_the_lock(self, name: str) -> None:
        """Somebody holds the name without a connection file: one who starts, or who leaves."""
        self.check()
        now = time.monotonic()
        self._locked_since = self._locked_since or now
        if now - self._locked_since > _PATIENCE:
            raise StartFailed(
                f"Another process has held the name {name!r} for {_PATIENCE:g} s without being "
                f"reachable{files.where_else(name)}. Choose another name, or end that process."
            )
        time.sleep(_POLL)


def _launch(config: WorkerConfig, lock: NameLock, wait: _Wait) -> Connection:
    child = Child(config)
    try:
        child.spawn(lock)
        connection = _wait_for_file(child, wait)
        _until_ready(connection, wait, child)
    except BaseException:  # an interrupt and an error of on_progress end it as a failure does
        child.stop()
        raise
    finally:
        child.close()
    return connection


def _wait_for_file(child: Child, wait: _Wait) -> Connection:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        wait.check()
        child.listen(_POLL)
        if child.gone:
            raise child.why()
        connection = files.running(child.name)
        if connection is not None and connection.process == child.process:
            return connection
    raise child.why(f"has written no connection file for {_PATIENCE:g} s")


def _attach(config: WorkerConfig, running: Connection, wait: _Wait) -> bool:
    """Whether the running worker is ready for us; False if it was leaving and is gone."""
    asked = conflict.asked_for(config)
    open_questions = conflict.check(asked, running)
    if not _until_ready(running, wait, None):
        return False
    if open_questions:
        with Watcher(running) as watcher:
            conflict.check_resolved(open_questions, running, watcher.status(_PATIENCE).model)
    return True


def _until_ready(connection: Connection, wait: _Wait, child: Child | None) -> bool:
    """Relay the loading until the worker is ready.

    False if it was on its way out before we came, and is gone now. Raises what the
    load failed with, or StartFailed for a worker that went away meanwhile.
    """
    took_part = child is not None
    with contextlib.closing(_news(connection, wait, child)) as news:
        for message in news:
            match message:
                case protocol.Progress():
                    wait.on_progress(message)
                case protocol.Goodbye(code=ProtocolMismatch.code):
                    raise ProtocolMismatch(message.message)
                case protocol.Welcome(instance=instance) if instance != connection.instance:
                    break
                case protocol.Welcome(state="ready") | protocol.StateChange(state="ready"):
                    return True
                case protocol.Welcome(state="loading") | protocol.StateChange(state="loading"):
                    took_part = True
                case protocol.StateChange(state="failed") if took_part:
                    _until_gone(connection, wait, child)
                    raise from_code(message.code, message.message, message.data)
    _until_gone(connection, wait, child)
    if child is not None:
        raise child.why()
    if took_part:
        raise StartFailed(
            f"The worker {connection.name!r} went away while it was loading. "
            f"What it wrote: llmkernel logs {connection.name}"
        )
    return False


def _news(
    connection: Connection, wait: _Wait, child: Child | None
) -> Generator[protocol.WorkerMessage, None, None]:
    """What the worker says, until it is gone or on its way out.

    After a silence the question is asked again on a fresh connection, since a
    connection that broke in between would stay silent for ever.
    """
    began = heard = time.monotonic()
    while time.monotonic() - heard < _PATIENCE:
        with Watcher(connection) as watcher:
            asked = time.monotonic()
            while time.monotonic() - max(asked, heard) < _SILENCE:
                wait.check()
                message = watcher.receive(_POLL)
                if message is not None:
                    heard = time.monotonic()
                    yield message
                elif _has_left(connection, child):
                    while (last := watcher.receive(_POLL)) is not None:
                        yield last  # it came while we looked away
                    return
                elif heard == began and time.monotonic() - began > _QUIET:
                    wait.on_progress(_silent_for(time.monotonic() - began))
                if _is_leaving(message):
                    return
    raise WorkerUnresponsive(
        f"The worker {connection.name!r} (process {connection.pid}) has not answered for "
        f"{_PATIENCE:g} s. End it with: llmkernel stop --kill {connection.name}"
    )


def _silent_for(seconds: float) -> protocol.Progress:
    most = int(_PATIENCE)
    return protocol.Progress(stage="answer", done=int(seconds), total=most, unit="seconds")


def _is_leaving(message: protocol.WorkerMessage | None) -> bool:
    # not a Welcome that says "failed": the reason comes after it
    match message:
        case protocol.Welcome(state="draining") | protocol.Goodbye():
            return True
        case protocol.StateChange(state="draining" | "failed"):
            return True
    return False


def _has_left(connection: Connection, child: Child | None) -> bool:
    if child is None:
        return not connection.alive
    child.listen(0)
    return child.gone


def _until_gone(connection: Connection, wait: _Wait, child: Child | None) -> None:
    """Wait for a worker that is on its way out, so that its memory is free on return."""
    while not _has_left(connection, child):
        wait.check()
        time.sleep(_POLL)


def _signal(connection: Connection, number: signal.Signals) -> None:
    if connection.alive:  # not merely a process with that number
        with contextlib.suppress(ProcessLookupError):
            os.kill(connection.pid, number)


def _gone(connection: Connection, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while connection.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _with_whole_path(config: WorkerConfig) -> WorkerConfig:
    """A local folder by its whole path: the worker must not depend on where it is started."""
    folder = Path(config.model).expanduser()
    if not folder.is_dir():
        return config
    return msgspec.structs.replace(config, model=str(folder.resolve()))


def _ignore(progress: protocol.Progress) -> None:
    """Nobody wants to know."""
