"""The lock on a worker's name: a flock that the kernel drops however its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from llmkernel.errors import ConnectionProblem

_CLOSED = -1
_IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)
_NO_WRITING = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM)


class NameLock:
    """A held lock file. The file goes away with `release`, not when the process crashes.

    In a `with` statement it is released at the end, unless it was handed over. Removing a
    lock file is safe only because `take` looks again, after it has the lock, whether the
    path still names the file that it locked.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, path: Path) -> NameLock | None:
        """Lock `path` without waiting; None if another process holds it.

        Raises ConnectionProblem if the path cannot be a lock of ours.
        """
        while True:
            fd = _open(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            lock = cls(path, fd)
            if lock.in_place:
                return lock
            os.close(fd)

    @classmethod
    def inherit(cls, path: Path, fd: int) -> NameLock:
        """Go on holding the lock that the parent process took and handed down as `fd`."""
        os.set_inheritable(fd, False)
        return cls(path, fd)

    @property
    def in_place(self) -> bool:
        """Whether the path still names the locked file."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.fd))

    def retake(self) -> bool:
        """Lock the path anew after somebody removed the file; False if another was faster."""
        fresh = NameLock.take(self.path)
        if fresh is None:
            return False
        os.close(self.fd)
        self.fd = fresh.fd
        return True

    def hand_over(self) -> None:
        """Close this process's copy after a child inherited the lock; it is not ours any more."""
        fd, self.fd = self.fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)

    def release(self) -> None:
        """Remove the file and drop the lock; no error if it is not ours any more."""
        if self.fd != _CLOSED and self.in_place:
            self.path.unlink(missing_ok=True)
        self.hand_over()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _cure(path: Path, number: int | None) -> str:
    """What helps against an error of opening; to remove only what is there and in the way."""
    if number in _IN_THE_WAY and os.path.lexists(path):
        return "Remove it and try again."
    if number in _NO_WRITING:
        return "Make room for it there, or set JUPYTER_RUNTIME_DIR to a folder that can be written."
    return "Try again."


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConnectionProblem(
            f"{path} cannot be used as a lock ({error.strerror}). {_cure(path, error.errno)}"
        ) from None
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise ConnectionProblem(f"{path} belongs to another user. Remove it and try again.")
    os.fchmod(fd, 0o600)
    return fd
