"""When a worker leaves, and how long it may take over it.

Reasons: SIGTERM or a client's Stop (finish what runs, 30 s at most), a second SIGTERM
or SIGQUIT (at once), no work for `idle_timeout`, a connection file that is gone or
another's, a load that failed, an engine that died or does not come back from a step.

Durations are measured on the loop's monotonic clock, so setting the machine's clock
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import math
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable

from llmkernel import collector, environment, paths
from llmkernel import connection as files
from llmkernel.connection import Connection
from llmkernel.errors import ConnectionProblem
from llmkernel.lock import NameLock

DRAIN_SECONDS = 30.0
"""How long running requests may go on after the worker was asked to leave."""
VANISHED_DRAIN_SECONDS = 2.0
"""The same where nobody can find the worker any more; it has to be gone within 5 s."""
FILE_CHECK_SECONDS = 1.0
STUCK_SECONDS = {"cuda": 30.0, "cpu": 600.0}
"""How long one step may take. On a GPU it takes milliseconds; a large model on a slow
CPU may need minutes for a chunk of a prompt, and is only reported after 30 s."""
SLOW_STEP_SECONDS = 30.0
EXIT_FAILED_LOAD = 1
EXIT_BROKEN = 70
"""The engine is lost (EX_SOFTWARE of sysexits.h); a supervisor should start a new worker."""

_MALLOC = {-3: 32 * 2**20, -1: 128 * 2**20}
"""M_MMAP_THRESHOLD, at the most it may be, and M_TRIM_THRESHOLD of malloc.h."""

_log = logging.getLogger(__name__)


def settle() -> None:
    """The model is loaded: what was made for it stays, and steps follow that are all alike."""
    collector.settle()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc hand a step's large tensors to the next step instead of to the system and back.

    Each page that comes back is a fault: a tenth of a step on the CPU.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system, or another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in _MALLOC.items():
            mallopt(parameter, size)


class Departure:
    """The decision to leave. Later reasons can only make it sooner, never later or undone."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._decided = asyncio.Event()
        self._deadline = math.inf

    @property
    def decided(self) -> bool:
        """Whether the worker is on its way out."""
        return self._decided.is_set()

    def decide(self, why: str, *, drain: float, exit_code: int = 0) -> None:
        """Leave, after giving running requests `drain` seconds."""
        deadline = asyncio.get_running_loop().time() + drain
        if not self.decided:
            _log.info("leaving: %s", why)
        elif deadline < self._deadline:
            _log.info("leaving sooner: %s", why)
        self.exit_code = self.exit_code or exit_code
        self._deadline = min(self._deadline, deadline)
        self._decided.set()

    async def wait(self) -> None:
        """Return when the decision is made."""
        await self._decided.wait()

    async def drained(self, busy: Callable[[], bool]) -> bool:
        """Wait until nothing runs; False if time ran out before."""
        loop = asyncio.get_running_loop()
        while busy():
            if loop.time() >= self._deadline:
                return False
            await asyncio.sleep(0.02)
        return True


def heed_signals(departure: Departure, *, foreground: bool) -> None:
    """SIGTERM drains, the second one and SIGQUIT do not wait.

    A resident worker has its own session, so SIGINT and SIGHUP are about other
    processes and ignored. In the foreground of a terminal they mean the worker.
    """
    loop = asyncio.get_running_loop()

    def on_term() -> None:
        drain = 0.0 if departure.decided else DRAIN_SECONDS
        departure.decide("SIGTERM", drain=drain)

    loop.add_signal_handler(signal.SIGTERM, on_term)
    loop.add_signal_handler(signal.SIGQUIT, lambda: departure.decide("SIGQUIT", drain=0.0))
    for number in (signal.SIGINT, signal.SIGHUP):
        if foreground:
            loop.add_signal_handler(number, on_term)
        else:
            signal.signal(number, signal.SIG_IGN)


def allow_many_files() -> None:
    """Raise the limit on open files as far as this user may.

    Each connection is one, and ZeroMQ ends the process when it can open no more.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def guard_file(connection: Connection, lock: NameLock, departure: Departure) -> None:
    """Leave when the connection file or the socket is gone, or the file another's.

    Nobody can find this worker, or reach it, then.
    """
    while not departure.decided:
        if not _is_ours(connection):
            why = "its connection file or socket is gone, or is not its own any more"
            departure.decide(why, drain=VANISHED_DRAIN_SECONDS)
        elif not paths.reachable(connection.endpoint):
            departure.decide("the socket is gone", drain=VANISHED_DRAIN_SECONDS)
        elif not lock.in_place and not lock.retake():
            _log.warning("another process holds the lock of this worker's name")
        await asyncio.sleep(FILE_CHECK_SECONDS)


def _is_ours(connection: Connection) -> bool:
    try:
        return files.is_current(connection)
    except ConnectionProblem as error:
        _log.warning("%s", error)
        return False
    except OSError as error:  # too many open files, say: no reason to leave
        _log.warning("the connection file could not be read: %s", error)
        return True


async def guard_idleness(
    idle_seconds: Callable[[], float], limit: float, departure: Departure
) -> None:
    """Leave after `limit` seconds without work, counted from now at the earliest."""
    loop = asyncio.get_running_loop()
    ready = loop.time()
    while not departure.decided:
        idle = min(idle_seconds(), loop.time() - ready)
        if idle >= limit:
            departure.decide(f"no work for {limit:g} s", drain=DRAIN_SECONDS)
        else:
            await asyncio.sleep(min(limit - idle, 0.5))


def stuck_after(device: str) -> float:
    """Seconds after which a step counts as stuck on `device`; infinite where that is turned off.

    LLMKERNEL_WATCHDOG overrides the device's default.
    """
    asked = environment.watchdog()
    if asked is not None:
        return asked or math.inf
    return STUCK_SECONDS["cuda" if device.startswith("cuda") else "cpu"]


async def guard_steps(
    step_seconds: Callable[[], float], limit: float, give_up: Callable[[float], None]
) -> None:
    """Report a step that takes long, with the stack of each thread, and give up on a stuck one.

    `step_seconds` is how long the present step has been going on, 0 between steps.
    """
    reported = False
    while (taken := step_seconds()) < limit:
        if taken < SLOW_STEP_SECONDS:
            reported = False
        elif not reported:
            reported = True
            _log.warning("one step has been going on for %.0f s\n%s", taken, _stacks())
        await asyncio.sleep(1.0)
    _log.error("one step has not come back\n%s", _stacks())
    give_up(taken)


def _stacks() -> str:
    """Where each thread is: lines of code, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}:\n")
        parts += traceback.format_stack(frame)
    return "".join(parts)
