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
from pathlib import Path
from typing import Any, Literal

import msgspec
from jupyter_core.paths import jupyter_runtime_dir

from llmkernel import environment
from llmkernel.config import WorkerConfig
from llmkernel.errors import ConnectionProblem, InvalidRequest, ProtocolMismatch, WorkerNotFound
from llmkernel.processes import Identity
from llmkernel.protocol import PROTOCOL_VERSION

MAX_FILE_BYTES = 64 * 1024
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path without the closing zero (unix(7))."""

_USER_FOLDER = f"llmkernel-{os.geteuid()}"
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


# Where things are --------------------------------------------------------------


def runtime_folder() -> Path:
    """Jupyter's runtime folder, made 0700 where it is missing.

    Raises ConnectionProblem if it belongs to another user or everybody may write
    in it. That a group may write is let pass, as shared Jupyter images set it up
    so: each file in it is checked by itself.
    """
    folder = Path(jupyter_runtime_dir())
    _make_private(folder)
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        raise ConnectionProblem(f"The runtime folder {folder} belongs to another user.")
    if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
        raise ConnectionProblem(
            f"Everybody may write in the runtime folder. Close it with: chmod 700 {folder}"
        )
    return folder


def connection_path(name: str) -> Path:
    """Where the connection file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "json")


def lock_path(name: str) -> Path:
    """Where the lock file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "lock")


def log_path(name: str) -> Path:
    """Where the log file of the worker `name` is. Raises InvalidRequest for a bad name."""
    return _beside(name, "log")


def bind_address(transport: Literal["ipc", "tcp"], instance: str) -> str:
    """What the worker `instance` binds: a fresh path in a folder of this user, or any loopback port.

    An ipc path is never used twice, since binding would take it over from its
    owner without an error.
    """
    if transport == "tcp":
        return "tcp://127.0.0.1:*"
    return f"ipc://{_socket_folder() / instance.replace('-', '')[:16]}"


# Files -------------------------------------------------------------------------


def write(connection: Connection) -> Path:
    """Write the connection file whole or not at all, for this user's eyes only.

    Raises OSError, leaving an older file as it was.
    """
    path = connection_path(connection.name)
    data = msgspec.json.format(msgspec.json.encode(connection), indent=1)
    fd, temporary = tempfile.mkstemp(prefix=".llmkernel-", suffix=".tmp", dir=path.parent)
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


def remove(connection: Connection) -> None:
    """Remove the file and the socket of `connection`, if the file is still its own."""
    with contextlib.suppress(ConnectionProblem):
        present = _read(connection.name)
        if present is not None and present.instance == connection.instance:
            connection.path.unlink(missing_ok=True)
    remove_socket(connection.endpoint)


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
            raise _not_found(name, f" on {connection.host}" if connection.elsewhere else "")
        return connection
    found = list_workers()
    if len(found) > 1:
        names = [connection.name for connection in found]
        raise WorkerNotFound(f"Several workers run; say which: {', '.join(names)}.", workers=names)
    if not found:
        raise WorkerNotFound("No worker runs.", workers=[])
    return found[0]


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


def _beside(name: str, suffix: str) -> Path:
    if not name:
        raise InvalidRequest("The name of a worker is empty.", field="name")
    WorkerConfig.build(name=name)  # raises for a name that could leave the folder
    return runtime_folder() / f"llmkernel-{name}.{suffix}"


def _read_private(path: Path) -> bytes | None:
    # NOFOLLOW: no symbolic link. NONBLOCK: a pipe put there must not hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
        raise _refused(path, why) from None
    with os.fdopen(fd, "rb") as file:
        _check_facts(path, os.fstat(fd))
        return file.read(MAX_FILE_BYTES)


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


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    folder.chmod(0o700)  # the umask may have taken bits that the owner needs


def _socket_folder() -> Path:
    """A folder of this user alone, with a short path, on a local disk.

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
    for folder in candidates:
        if len(os.fsencode(folder)) + 17 <= MAX_SOCKET_PATH and _is_private(folder):
            return folder
    # somebody else sits on all these names: take one that nobody could foresee
    return Path(tempfile.mkdtemp(prefix="llmkernel-", dir="/tmp"))  # noqa: S108  (mkdtemp is 0700)


def _is_private(folder: Path) -> bool:
    try:
        _make_private(folder)
        facts = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    return mine and not facts.st_mode & 0o077
