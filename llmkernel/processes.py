"""Which process is which: an identity that a reused process id cannot fake."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Identity(msgspec.Struct, frozen=True):
    """One run of one process on one boot of one machine."""

    pid: int
    start_time: int
    """Clock ticks after boot on Linux, microseconds elsewhere: only ever compared."""
    boot_id: str
    """Empty where the system has none; the start time is absolute there."""

    @property
    def alive(self) -> bool:
        """Whether this very process still runs here; a zombie does not."""
        return self.boot_id == boot_id() and start_time(self.pid) == self.start_time


def own_identity() -> Identity:
    """The identity of this process."""
    start = start_time(os.getpid())
    assert start is not None, "this process runs"
    return Identity(os.getpid(), start, boot_id())


@functools.cache
def boot_id() -> str:
    """What the kernel calls the present boot."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """When process `pid` started, or None if there is no such process or only its zombie."""
    return _linux_start(pid) if sys.platform.startswith("linux") else _psutil_start(pid)


def _linux_start(pid: int) -> int | None:
    # not psutil here: its start time is wall-clock time, which shifts with the clock
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name, field 2, may hold blanks and brackets: fields 3.. follow its last bracket
    fields = line.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _psutil_start(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() * 1e6)
    except psutil.Error:
        return None
