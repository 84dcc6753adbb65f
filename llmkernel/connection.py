"""How a worker is found: its connection file, its keys and the folder of its socket.

Jupyter's runtime folder holds, for each worker,

    llmkernel-<name>.json   0600; written by the worker after it has bound its socket
    llmkernel-<name>.lock   held with flock from before the model loads until the worker leaves
    llmkernel-<name>.log    what it wrote; stays when the worker leaves

The lock decides who may use a name; the file says where that worker is. A file is
believed only if it is a plain file of this user that nobody else can read, and a
worker only counts as running if process id, start time and boot id agree, so
neither a crash nor a reused process id looks like a worker. The hello compares the
instance as well.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from llmkernel.errors import ConnectionProblem, InvalidRequest, ProtocolMismatch, WorkerNotFound
from llmkernel.lock import NameLock
from llmkernel.paths import (
    connection_path,
    lock_path,
    remove_socket,
    remove_sockets,
    runtime_folder,
)
from llmkernel.processes import Identity
from llmkernel.protocol import PROTOCOL_VERSION

MAX_FILE_BYTES = 64 * 1024
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE)
"""Errors of opening that say nothing about the file: raised as the OSError they are."""
_log = logging.getLogger(__name__)


class Keys(msgspec.Struct, frozen=True):
    """The CURVE key pairs of one worker, Z85. The worker's secret key stays in its memory.

    `client_public` is the only entry of the worker's allow-list.
    """

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str

    @classmethod
    def generate(cls) -> Keys:
        """Fresh keys. Raises ConnectionProblem if the installed ZeroMQ cannot encrypt."""
        import zmq

        if not zmq.has("curve") or zmq.zmq_version_info() < (4, 3, 4):
            raise ConnectionProblem(
                f"The installed ZeroMQ {zmq.zmq_version()} is too old or was built without "
                "encryption (CURVE). Install the wheel: pip install --force-reinstall pyzmq"
            )
        pairs = [key.decode() for _ in range(2) for key in zmq.curve_keypair()]
        return cls(*pairs)

    def __repr__(self) -> str:
        return f"Keys(server_public={self.server_public!r}, ...)"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection file says: everything that a client needs to talk to one worker."""

    name: str
    protocol: tuple[int, int] = PROTOCOL_VERSION
    package: str
    instance: str
    """Unique to this run of the worker; its Welcome repeats it."""
    host: str
    process: Identity
    endpoint: str
    server_public_key: str
    client_public_key: str
    client_secret_key: str
    model: str
    settings: dict[str, Any] = {}
    """The WorkerConfig it was started with."""
    log: str

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self.process.pid

    @property
    def path(self) -> Path:
        """Where its connection file is."""
        return connection_path(self.name)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the file still runs on this machine."""
        return self.process.alive

    @property
    def elsewhere(self) -> bool:
        """Whether it was written on another machine that shares this folder."""
        return not self.alive and self.host != socket.gethostname()

    def __repr__(self) -> str:
        return (
            f"Connection(name={self.name!r}, model={self.model!r}, pid={self.pid}, "
            f"endpoint={self.endpoint!r}, instance={self.instance!r})"
        )


# Files -------------------------------------------------------------------------


def write(connection: Connection) -> Path:
    """Write the connection file whole or not at all, for this user's eyes only.

    Raises OSError, leaving an older file as it was.
    """
    runtime_folder(make=True)
    path = connection_path(connection.name)
    data = msgspec.json.format(msgspec.json.encode(connection), indent=1)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def read(name: str) -> Connection:
    """Read and check the connection file of the worker `name`, which may be dead.

    Raises WorkerNotFound without a file, ProtocolMismatch for one of another major
    version, ConnectionProblem for one that cannot be trusted or is no connection file.
    """
    connection = _read(name)
    if connection is None:
        raise _not_found(name)
    return connection


def is_current(connection: Connection) -> bool:
    """Whether the connection file is there and is that of this very run of the worker.

    Raises ConnectionProblem for a file that cannot be trusted, OSError if it cannot be read.
    """
    present = _read(connection.name)
    return present is not None and present.instance == connection.instance


def remove(connection: Connection) -> None:
    """Remove the file and the socket of `connection`, if the file is still its own."""
    with contextlib.suppress(ConnectionProblem):
        if is_current(connection):
            connection.path.unlink(missing_ok=True)
    remove_socket(connection.endpoint)


def clear(name: str, patience: float = 0.0) -> None:
    """Remove what a dead worker left under `name`: its file, its socket, its lock file.

    Nothing happens if another process holds the name for `patience` seconds: a process
    that was killed may hold it a moment longer than it seems to live.
    """
    deadline = time.monotonic() + patience
    while (lock := NameLock.take(lock_path(name))) is None:
        if time.monotonic() >= deadline:
            return
        time.sleep(0.01)
    with lock:
        remove_dead(name)


def remove_dead(name: str) -> None:
    """Remove the file and the socket of a dead worker. For whoever holds the lock on its name."""
    path = connection_path(name)
    for torn in path.parent.glob(f".{path.name}.????????.tmp"):  # it died while it wrote
        torn.unlink(missing_ok=True)
    with contextlib.suppress(ConnectionProblem):
        connection = _read(name)
        if connection is not None and connection.alive:
            return
        if connection is not None:
            remove(connection)
    remove_sockets(name)  # of one that died before it had written its file


def sweep() -> None:
    """Clear away what every worker has left that died on this machine without tidying up."""
    for path in runtime_folder().glob("llmkernel-*.json"):
        name = path.name.removeprefix("llmkernel-").removesuffix(".json")
        with contextlib.suppress(ConnectionProblem, InvalidRequest):
            connection = _read(name)
            if connection is not None and not connection.alive and not connection.elsewhere:
                clear(name)


# Discovery -----------------------------------------------------------------------


def list_workers() -> list[Connection]:
    """The workers that run on this machine, by name; loading and draining ones too."""
    found = []
    for path in sorted(runtime_folder().glob("llmkernel-*.json")):
        name = path.name.removeprefix("llmkernel-").removesuffix(".json")
        try:
            connection = running(name)
        except (ConnectionProblem, InvalidRequest) as error:
            _log.warning("%s is left out: %s", path.name, error)
            continue
        if connection is not None:
            found.append(connection)
    return found


def running(name: str) -> Connection | None:
    """The running worker `name`, or None; raises only for a file that cannot be trusted."""
    connection = _read(name)
    return connection if connection is not None and connection.alive else None


def find(name: str | None = None) -> Connection:
    """The worker `name`, or the only one that runs.

    Raises WorkerNotFound that lists the names where none or several fit, and what
    `read` raises for a file that cannot be trusted.
    """
    if name is not None:
        connection = read(name)
        if not connection.alive:
            raise _not_found(name, where_else(name))
        return connection
    found = list_workers()
    if len(found) > 1:
        names = [connection.name for connection in found]
        raise WorkerNotFound(f"Several workers run; say which: {', '.join(names)}.", workers=names)
    if not found:
        raise WorkerNotFound("No worker runs.", workers=[])
    return found[0]


def where_else(name: str) -> str:
    """The words " on HOST" if the file of the worker `name` is another machine's, else none."""
    connection = _read(name)
    return f" on {connection.host}" if connection is not None and connection.elsewhere else ""


def last_log() -> str:
    """Whose log to show: the only running worker, or the one that wrote last where none runs."""
    running = list_workers()
    if running:
        return find().name
    files = runtime_folder().glob("llmkernel-*.log")
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise WorkerNotFound("No worker runs, and none has written a log.")
    return newest.name.removeprefix("llmkernel-").removesuffix(".log")


# Details -----------------------------------------------------------------------


class _Version(msgspec.Struct):
    protocol: tuple[int, int]


def _read(name: str) -> Connection | None:
    path = connection_path(name)
    data = _read_private(path)
    if data is None:
        return None
    try:
        _check_protocol(name, msgspec.json.decode(data, type=_Version).protocol)
        connection = msgspec.json.decode(data, type=Connection)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(path, f"is no connection file: {error}") from None
    if connection.name != name:
        raise _refused(path, f"describes a worker of another name, {connection.name!r}")
    return connection


def _not_found(name: str, elsewhere: str = "") -> WorkerNotFound:
    names = [connection.name for connection in list_workers()]
    ran = (
        f"The worker {name!r} runs{elsewhere}, not here."
        if elsewhere
        else f"No worker {name!r} runs."
    )
    listed = f" Running: {', '.join(names)}." if names else " No other runs either."
    return WorkerNotFound(ran + listed, workers=names)


def _check_protocol(name: str, theirs: tuple[int, int]) -> None:
    if theirs[0] != PROTOCOL_VERSION[0]:
        raise ProtocolMismatch(
            f"The worker {name!r} speaks protocol {theirs[0]}.{theirs[1]}, "
            f"this llmkernel {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}."
        )


def _read_private(path: Path) -> bytes | None:
    # NOFOLLOW: no symbolic link. NONBLOCK: a pipe put there must not hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"fails: {error.strerror}"
        raise _refused(path, why) from None
    try:
        _check_facts(path, os.fstat(fd))
        return os.read(fd, MAX_FILE_BYTES)
    finally:
        os.close(fd)


def _check_facts(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise _refused(path, "is no regular file")
    if facts.st_uid != os.geteuid():
        raise _refused(path, "belongs to another user")
    if facts.st_mode & 0o077:
        raise _refused(path, f"has mode {stat.S_IMODE(facts.st_mode):04o}, so others can read it")
    if facts.st_size > MAX_FILE_BYTES:
        raise _refused(path, f"is larger than {MAX_FILE_BYTES} bytes")


def _refused(path: Path, why: str) -> ConnectionProblem:
    return ConnectionProblem(
        f"The connection file {path} {why}. Nothing in it is used; remove it and start again."
    )


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
