"""Where a worker's files and its socket are.

The connection, lock and log files are in Jupyter's runtime folder, which may be on a
network disk; the socket is in a private folder on a local one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Literal

from jupyter_core.paths import jupyter_runtime_dir

from llmkernel import environment
from llmkernel.config import WorkerConfig
from llmkernel.errors import ConnectionProblem, InvalidRequest

MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path without the closing zero (unix(7))."""

_PASSING = (errno.EIO, errno.ENOMEM, errno.ESTALE)
"""Errors that say nothing about the folder: raised as the OSError they are."""
_USER_FOLDER = f"llmkernel-{os.geteuid()}"


def runtime_folder(*, make: bool = False) -> Path:
    """Jupyter's runtime folder; with `make` it is made 0700 where it is missing.

    Who only looks for a worker makes none, or it would come back under the hands of
    whoever removes it.

    Raises ConnectionProblem if it cannot be made or entered, belongs to another user
    or everybody may write in it, and OSError for a fault of the disk that may pass.
    That a group may write is let pass, as shared Jupyter images set it up so: each
    file in it is checked by itself.
    """
    folder = Path(jupyter_runtime_dir())
    try:
        if make:
            _make_private(folder)
        facts = folder.stat()
    except OSError as error:
        if error.errno == errno.ENOENT and not make:
            return folder  # with nothing in it
        if error.errno in _PASSING:
            raise
        raise _unusable(folder, error.strerror or str(error)) from None
    if not stat.S_ISDIR(facts.st_mode):
        raise _unusable(folder, os.strerror(errno.ENOTDIR))
    if facts.st_uid != os.geteuid():
        raise ConnectionProblem(f"The runtime folder {folder} belongs to another user.")
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        raise ConnectionProblem(
            f"Everybody may write in the runtime folder. Close it with: chmod 700 {folder}"
        )
    return folder


def connection_path(name: str) -> Path:
    """Where the connection file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "json", make=False)


def lock_path(name: str) -> Path:
    """Where the lock file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "lock", make=True)


def log_path(name: str) -> Path:
    """Where the log file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "log", make=True)


def cache_folder() -> Path:
    """Where what a second start finds ready is kept, made 0700 where it is missing.

    Raises OSError where it cannot be made.
    """
    folder = environment.cache_dir()
    _make_private(folder)
    return folder


def bind_address(transport: Literal["ipc", "tcp"], name: str) -> str:
    """What the worker `name` binds: a fresh path in a folder of this user, or any loopback port.

    An ipc path is never used twice, since binding would take it over from its
    owner without an error. Its first half is the worker's, so that `remove_sockets`
    finds it whatever moment its owner died in.
    """
    if transport == "tcp":
        return "tcp://127.0.0.1:*"
    return f"ipc://{_socket_folder() / (_socket_prefix(name) + secrets.token_hex(4))}"


def open_private(path: Path) -> int:
    """A descriptor that appends to a file of this user alone, made where it is missing.

    Raises OSError for anything that cannot be opened, and for what is no regular file:
    a symbolic link, a pipe, a device.
    """
    # NONBLOCK: a pipe put there must not hang us; to a regular file it makes no difference
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads
            raise _irregular(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _irregular(path)
    os.fchmod(fd, 0o600)
    return fd


def reachable(endpoint: str) -> bool:
    """Whether the socket of an ipc endpoint still has its place; any other has none to lose."""
    if not endpoint.startswith("ipc://"):
        return True
    try:
        return stat.S_ISSOCK(os.lstat(endpoint.removeprefix("ipc://")).st_mode)
    except FileNotFoundError:
        return False
    except OSError:  # a shortage: no reason to leave
        return True


def remove_socket(endpoint: str) -> None:
    """Remove what a worker that is gone left of an ipc endpoint in a socket folder of ours."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc://") or not path.parent.name.startswith("llmkernel"):
        return
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
        if path.parent.name not in ("llmkernel", _USER_FOLDER):
            path.parent.rmdir()  # made for this one socket


def remove_sockets(name: str) -> None:
    """Remove every socket that a worker `name` has left. For whoever holds the lock on its name."""
    for folder in _socket_folders():
        for path in folder.glob(f"{_socket_prefix(name)}????????"):
            remove_socket(f"ipc://{path}")


def _socket_prefix(name: str) -> str:
    """The same for all runs of a worker, and no other's: other runtime folders have their names too."""
    return hashlib.sha256(os.fsencode(lock_path(name))).hexdigest()[:8]


def _beside(name: str, suffix: str, *, make: bool) -> Path:
    if not name:
        raise InvalidRequest("The name of a worker is empty.", field="name")
    WorkerConfig.build(name=name)  # raises for a name that could leave the folder
    return runtime_folder(make=make) / f"llmkernel-{name}.{suffix}"


def _unusable(folder: Path, why: str) -> ConnectionProblem:
    return ConnectionProblem(
        f"The runtime folder {folder} cannot be used ({why}). Set JUPYTER_RUNTIME_DIR to a folder "
        "that you may write in."
    )


def _irregular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "No regular file; remove it", str(path))


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    folder.chmod(0o700)  # the umask may have taken bits that the owner needs


def _socket_folders() -> list[Path]:
    """Where a socket's folder may be: short paths on local disks.

    $XDG_RUNTIME_DIR where the login session has one, else the system's temporary
    folder. Not the home folder: it may be a network disk, where sockets do not
    reach, and its path may be long.
    """
    session = environment.user_runtime_dir()
    candidates = [session / "llmkernel"] if session else []
    candidates += [
        Path(temporary) / _USER_FOLDER
        for temporary in (tempfile.gettempdir(), "/tmp")  # noqa: S108  (a fallback with a short path; checked)
    ]
    return [folder for folder in candidates if len(os.fsencode(folder)) + 17 <= MAX_SOCKET_PATH]


def _socket_folder() -> Path:
    """A folder of this user alone for sockets, made where it is missing."""
    for folder in _socket_folders():
        if _is_private(folder):
            return folder
    # somebody else sits on all these names: take one that nobody could foresee
    return Path(tempfile.mkdtemp(prefix="llmkernel-", dir="/tmp"))


def _is_private(folder: Path) -> bool:
    try:
        _make_private(folder)
        facts = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    return mine and not facts.st_mode & 0o077
