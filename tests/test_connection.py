"""Connection files, locks and folders: what is written, what is believed, what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from llmkernel import connection as files
from llmkernel import paths, processes
from llmkernel.connection import Connection, Keys
from llmkernel.errors import ConnectionProblem, InvalidRequest, ProtocolMismatch, WorkerNotFound
from llmkernel.lock import NameLock
from llmkernel.processes import Identity, own_identity

pytestmark = pytest.mark.timeout(30)


def describe(name: str = "one", **changes) -> Connection:
    keys = Keys.generate()
    connection = Connection(
        name=name,
        package="1.0",
        instance=f"instance-of-{name}",
        host=socket.gethostname(),
        process=own_identity(),
        endpoint="ipc:///nowhere/llmkernel/socket",
        server_public_key=keys.server_public,
        client_public_key=keys.client_public,
        client_secret_key=keys.client_secret,
        model="demo",
        log="log",
    )
    return msgspec.structs.replace(connection, **changes)


def dead(connection: Connection) -> Connection:
    """The same, written by a process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    identity = Identity(process.pid, processes.start_time(process.pid) or 0, processes.boot_id())
    process.wait()
    return msgspec.structs.replace(connection, process=identity)


@contextlib.contextmanager
def umask(mask: int):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# What is written -----------------------------------------------------------------


def test_what_is_written_is_read_back(runtime_dir):
    connection = describe(settings={"quantization": "nf4"})
    files.write(connection)
    assert files.read("one") == connection
    assert files.find() == connection
    assert files.find("one") == connection


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_private_whatever_the_umask(runtime_dir, mask):
    runtime_dir.rmdir()
    with umask(mask):
        path = files.write(describe())
        lock = NameLock.take(paths.lock_path("one"))
        os.close(paths.open_private(paths.log_path("one")))
        sockets = Path(paths.bind_address("ipc", "abc").removeprefix("ipc://")).parent
    assert lock is not None
    assert {mode(p) for p in (path, lock.path, paths.log_path("one"))} == {0o600}
    assert mode(runtime_dir) == mode(sockets) == 0o700
    lock.release()


def test_the_file_is_replaced_whole(runtime_dir):
    files.write(describe(instance="old"))
    with files.connection_path("one").open() as old:
        files.write(describe(instance="new"))
        assert '"old"' in old.read()
    assert files.read("one").instance == "new"
    assert [p.name for p in runtime_dir.iterdir()] == ["llmkernel-one.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_the_old_file_as_it_was(runtime_dir):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(runtime_dir)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("this machine does not let a tmpfs be mounted")
    try:
        files.write(describe(instance="old"))
        with contextlib.suppress(OSError):
            (runtime_dir / "filler").write_bytes(b"x" * 2**17)
        with pytest.raises(OSError, match="No space left"):
            files.write(describe(instance="new", log="x" * 8192))
        assert files.read("one").instance == "old"
        assert not list(runtime_dir.glob(".llmkernel*"))
    finally:
        subprocess.run(["umount", str(runtime_dir)], check=True)


def test_a_failed_write_leaves_no_temporary_file(runtime_dir):
    (runtime_dir / "llmkernel-one.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(describe())
    assert [p.name for p in runtime_dir.iterdir()] == ["llmkernel-one.json"]


def test_the_worker_keeps_its_secret_key_to_itself(runtime_dir):
    keys = Keys.generate()
    connection = describe(
        server_public_key=keys.server_public,
        client_public_key=keys.client_public,
        client_secret_key=keys.client_secret,
    )
    written = files.write(connection).read_text()
    for key in (keys.server_public, keys.client_public, keys.client_secret):
        assert msgspec.json.encode(key).decode() in written
    assert msgspec.json.encode(keys.server_secret).decode() not in written


def test_secret_keys_are_not_in_what_is_shown():
    keys = Keys.generate()
    connection = describe(client_secret_key=keys.client_secret)
    shown = f"{connection!r} {connection} {keys!r} {keys}"
    assert keys.client_secret not in shown
    assert keys.server_secret not in shown


def test_keys_are_pairs_and_fresh():
    import zmq

    keys, others = Keys.generate(), Keys.generate()
    assert zmq.curve_public(keys.server_secret.encode()).decode() == keys.server_public
    assert zmq.curve_public(keys.client_secret.encode()).decode() == keys.client_public
    assert len({*msgspec.structs.astuple(keys), *msgspec.structs.astuple(others)}) == 8


# What is believed ----------------------------------------------------------------


def test_no_worker_is_an_error_that_says_so(runtime_dir):
    with pytest.raises(WorkerNotFound, match="No worker runs"):
        files.find()
    with pytest.raises(WorkerNotFound, match="No other runs either"):
        files.find("one")


def test_several_workers_are_listed_where_one_has_to_be_named(runtime_dir):
    for name in ("b", "a", "c"):
        files.write(describe(name))
    with pytest.raises(WorkerNotFound, match="a, b, c") as caught:
        files.find()
    assert caught.value.data["workers"] == ["a", "b", "c"]
    with pytest.raises(WorkerNotFound, match="Running: a, b, c"):
        files.find("d")
    assert [connection.name for connection in files.list_workers()] == ["a", "b", "c"]


def test_a_dead_worker_is_not_found(runtime_dir):
    files.write(dead(describe()))
    files.write(describe("two"))
    assert files.find().name == "two"
    assert files.running("one") is None
    with pytest.raises(WorkerNotFound, match="Running: two"):
        files.find("one")


def test_a_reused_process_id_is_no_worker(runtime_dir):
    """The id is that of a process that runs, which started at another time."""
    me = own_identity()
    files.write(describe(process=msgspec.structs.replace(me, start_time=me.start_time - 1)))
    assert files.list_workers() == []


def test_a_file_of_an_earlier_boot_is_no_worker(runtime_dir):
    files.write(describe(process=msgspec.structs.replace(own_identity(), boot_id="before")))
    assert files.list_workers() == []


def test_a_worker_of_another_machine_is_named_as_such(runtime_dir):
    elsewhere = describe(host="a-big-box", process=Identity(1, 1, "another boot"))
    files.write(elsewhere)
    assert files.list_workers() == []
    with pytest.raises(WorkerNotFound, match="runs on a-big-box, not here"):
        files.find("one")


# What is refused -----------------------------------------------------------------


def refused(match: str) -> None:
    with pytest.raises(ConnectionProblem, match=match):
        files.read("one")
    assert files.list_workers() == []


def test_a_symbolic_link_is_refused(runtime_dir, tmp_path):
    path = files.write(describe())
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    refused("symbolic link")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_file_that_others_may_touch_is_refused(runtime_dir, bits):
    files.write(describe()).chmod(bits)
    refused(f"has mode {bits:04o}")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_another_user_is_refused(runtime_dir):
    os.chown(files.write(describe()), 12345, -1)
    refused("belongs to another user")


def test_a_pipe_is_refused_and_nobody_waits_for_it(runtime_dir):
    os.mkfifo(runtime_dir / "llmkernel-one.json", 0o600)
    refused("no regular file")


def test_a_folder_is_refused(runtime_dir):
    (runtime_dir / "llmkernel-one.json").mkdir(mode=0o700)
    refused("no regular file")


def put(folder: Path, data: bytes) -> None:
    fd = os.open(folder / "llmkernel-one.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"protocol": "x"}',
        b'{"protocol": [1, 0]}',
        b"\xff\xfe",
        b"[" * 60000,
        b'{"protocol": [1, 0], "name": NaN}',
    ],
    ids=range(9),
)
def test_what_is_no_connection_file_is_refused(runtime_dir, data):
    put(runtime_dir, data)
    refused("no connection file")


@pytest.mark.parametrize("kept", [1, 100, 400])
def test_a_torn_file_is_refused(runtime_dir, kept):
    path = files.write(describe())
    put(runtime_dir, path.read_bytes()[:kept])
    refused("no connection file")


def test_a_huge_file_is_refused_unread(runtime_dir):
    put(runtime_dir, b" " * (files.MAX_FILE_BYTES + 1))
    refused("larger than")


def test_a_file_under_another_name_is_refused(runtime_dir):
    files.write(describe("two")).rename(runtime_dir / "llmkernel-one.json")
    refused("another name")


def test_another_major_version_names_both(runtime_dir):
    path = files.write(describe())
    put(runtime_dir, path.read_bytes().replace(b'"protocol": [\n  1', b'"protocol": [\n  9'))
    with pytest.raises(ProtocolMismatch, match=r"protocol 9\.\d, this llmkernel 1\."):
        files.find("one")


def test_a_newer_minor_version_is_read(runtime_dir):
    path = files.write(describe())
    fields = json.loads(path.read_bytes())
    major, minor = fields["protocol"]
    newer = fields | {"protocol": [major, minor + 5], "new_field": 1}
    put(runtime_dir, json.dumps(newer).encode())
    assert files.find("one").protocol == (major, minor + 5)


@pytest.mark.parametrize("name", ["../one", "a/b", "", "ONE", ".one", "a\0b", "x" * 65])
def test_a_name_cannot_leave_the_folder(runtime_dir, name):
    for use in (files.find, files.read, paths.log_path, paths.lock_path):
        with pytest.raises(InvalidRequest):
            use(name)


def test_a_decoy_in_the_current_folder_is_not_seen(runtime_dir, tmp_path, monkeypatch):
    files.write(describe()).rename(tmp_path / "llmkernel-one.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkerNotFound):
        files.find("one")


def test_a_runtime_folder_that_everybody_may_write_in_is_refused(runtime_dir):
    files.write(describe())
    runtime_dir.chmod(0o777)
    with pytest.raises(ConnectionProblem, match="chmod 700"):
        files.find("one")
    runtime_dir.chmod(0o1777)
    assert files.find("one").name == "one"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_runtime_folder_of_another_user_is_refused(runtime_dir):
    os.chown(runtime_dir, 12345, -1)
    with pytest.raises(ConnectionProblem, match="another user"):
        files.list_workers()
    os.chown(runtime_dir, os.geteuid(), -1)


# Removing ------------------------------------------------------------------------


def bound_socket(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def test_a_worker_removes_its_own_file_and_socket_only(runtime_dir):
    endpoint = paths.bind_address("ipc", "one")
    with bound_socket(Path(endpoint.removeprefix("ipc://"))):
        mine = describe(endpoint=endpoint, instance="mine")
        files.write(describe(instance="another"))
        files.remove(mine)
        assert files.read("one").instance == "another"
        files.write(mine)
        files.remove(mine)
    assert not paths.connection_path("one").exists()
    assert not Path(endpoint.removeprefix("ipc://")).exists()


def test_what_a_dead_worker_left_is_cleared(runtime_dir):
    endpoint = paths.bind_address("ipc", "one")
    with bound_socket(Path(endpoint.removeprefix("ipc://"))):
        files.write(dead(describe(endpoint=endpoint)))
        files.clear("one")
    assert list(runtime_dir.iterdir()) == []
    assert not Path(endpoint.removeprefix("ipc://")).exists()


def test_a_socket_of_a_worker_that_died_before_it_wrote_its_file_is_cleared(runtime_dir):
    mine, anothers = (
        Path(paths.bind_address("ipc", name).removeprefix("ipc://")) for name in ("one", "other")
    )
    with bound_socket(mine), bound_socket(anothers):
        files.clear("one")
    assert not mine.exists()
    assert anothers.exists()


def test_a_living_worker_is_not_cleared(runtime_dir):
    endpoint = paths.bind_address("ipc", "one")
    with bound_socket(Path(endpoint.removeprefix("ipc://"))):
        files.write(describe(endpoint=endpoint))
        files.clear("one")
    assert files.running("one") is not None
    assert Path(endpoint.removeprefix("ipc://")).exists()


def test_a_hostile_file_cannot_have_other_files_removed(runtime_dir, tmp_path):
    precious = tmp_path / "llmkernel-x" / "precious"
    precious.parent.mkdir()
    precious.write_text("data")
    with bound_socket(tmp_path / "socket"):
        for path in (precious, tmp_path / "socket"):
            paths.remove_socket(f"ipc://{path}")
        assert precious.exists()
        assert (tmp_path / "socket").exists()
