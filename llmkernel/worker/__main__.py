"""The process of a worker: `python -m llmkernel.worker [MODEL] [OPTIONS]`.

Started by hand it stays in the foreground and logs to the terminal as well. The
launcher hands it the lock on its name: then it reads its configuration from standard
input, leaves its parent and session, and goes on holding that lock.

Exit codes: 0 left when asked, 1 not started, 70 the engine is lost, 75 a worker of that
name runs already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any, NoReturn

import click
import msgspec

from llmkernel import connection as files
from llmkernel import paths, protocol
from llmkernel.child import Report
from llmkernel.config import WorkerConfig
from llmkernel.errors import InvalidRequest, LLMKernelError, StartFailed
from llmkernel.lock import NameLock
from llmkernel.options.worker import build_config, worker_options
from llmkernel.processes import own_identity
from llmkernel.worker import lifecycle, logs

EXIT_TAKEN = 75
"""A worker of that name runs (EX_TEMPFAIL of sysexits.h)."""

_log = logging.getLogger("llmkernel.worker")


class Reporter:
    """The pipe to the process that waits for this one; None where nobody does."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)

    def __call__(self, report: Report) -> None:
        """Send a line; the one that says ready is the last."""
        if self._fd is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it does not wait any more
            os.write(self._fd, msgspec.json.encode(report) + b"\n")
        if report.ready:
            os.close(self._fd)
            self._fd = None


@click.command()
@worker_options
@click.option("--lock-fd", type=int, hidden=True)
@click.option("--report-fd", type=int, hidden=True)
def main(lock_fd: int | None, report_fd: int | None, **values: Any) -> NoReturn:
    """Serve MODEL in the foreground; `llmkernel start` serves it in the background.

    Ctrl-C finishes what runs, 30 s at most; again, it does not wait.
    """
    # a signal waits while the lock is taken: it would leave the file of the lock behind
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        if lock_fd is not None:
            config = _read_config()
            _detach()
            lock = NameLock.inherit(paths.lock_path(config.name), lock_fd)
        else:
            config = build_config(values)
            lock = _take(config.name)
    except LLMKernelError as error:
        raise click.ClickException(error.message) from None
    _leave(_serve(config, lock, Reporter(report_fd), foreground=lock_fd is None))


def _serve(config: WorkerConfig, lock: NameLock, report: Reporter, *, foreground: bool) -> int:
    # until the loop heeds signals, and while it imports, one means: leave nothing behind
    signal.signal(signal.SIGTERM, lambda *_: _vanish(lock))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        report(Report(process=own_identity()))
        lifecycle.allow_many_files()
        logs.configure(paths.log_path(config.name), capture=not foreground)
        _log.info("worker %s: %s", config.name, config)
        from llmkernel.worker.service import Service

        return asyncio.run(Service(config, lock, report, foreground=foreground).run())
    except LLMKernelError as error:
        _log.error("not started: %s", error.message)
        report(Report(**protocol.wire_error(error)))
        return lifecycle.EXIT_FAILED_LOAD
    except OSError as error:  # a full disk, say: then the log has no room for it either
        _log.exception("the worker broke")
        what = f"The worker broke: {error}. It needs its runtime folder and a socket."
        report(Report(**protocol.wire_error(StartFailed(what))))
        return lifecycle.EXIT_BROKEN
    except BaseException:  # noqa: BLE001 - whatever it is, the log has it before the process goes
        _log.exception("the worker broke")
        return lifecycle.EXIT_BROKEN
    finally:
        lock.release()


def _read_config() -> WorkerConfig:
    try:
        values = msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"Settings come as JSON from standard input: {error}") from None
    return WorkerConfig.build(**values)


def _detach() -> None:
    """Go on as a process without this parent, in a session of its own.

    A notebook's kernel that is restarted takes its children and its process group
    along; this is then neither.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)


def _take(name: str) -> NameLock:
    lock = NameLock.take(paths.lock_path(name))
    if lock is not None and files.running(name) is None:
        return lock
    click.echo(f"A worker {name!r} runs already. Choose another with --name.", err=True)
    sys.exit(EXIT_TAKEN)


def _vanish(lock: NameLock) -> NoReturn:
    """Leave in the middle of whatever it is; an exception might end in an `except` of an import."""
    lock.release()
    os._exit(0)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for any thread: a load or a step may never come back."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
