"""Where sockets go: a private folder with a short path, and no path twice."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from llmkernel import connection, paths
from llmkernel.errors import ConnectionProblem

pytestmark = pytest.mark.timeout(30)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_socket_path_fits_and_is_never_used_twice(runtime_dir):
    addresses = {paths.bind_address("ipc", "one") for n in range(100)}
    assert len(addresses) == 100
    assert all(len(a.removeprefix("ipc://")) <= paths.MAX_SOCKET_PATH for a in addresses)


def test_a_long_session_folder_falls_back_to_the_temporary_one(runtime_dir, monkeypatch):
    deep = runtime_dir / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    folder = Path(paths.bind_address("ipc", "abc").removeprefix("ipc://")).parent
    assert folder.parent == Path(tempfile.gettempdir())
    assert mode(folder) == 0o700


@pytest.mark.parametrize("spoil", ["open", "link", "file"])
def test_a_folder_that_is_not_private_is_passed_over(runtime_dir, monkeypatch, spoil):
    session = runtime_dir / "session"
    session.mkdir()
    taken = session / "llmkernel"
    if spoil == "open":
        taken.mkdir()
        taken.chmod(0o755)
    elif spoil == "link":
        (runtime_dir / "target").mkdir(mode=0o700)
        taken.symlink_to(runtime_dir / "target")
    else:
        taken.write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    folder = Path(paths.bind_address("ipc", "abc").removeprefix("ipc://")).parent
    assert folder.parent != session


def test_a_folder_made_for_one_socket_goes_with_it(runtime_dir, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    monkeypatch.setattr(paths, "_is_private", lambda folder: False)
    path = Path(paths.bind_address("ipc", "abc").removeprefix("ipc://"))
    assert mode(path.parent) == 0o700
    assert re.fullmatch(r"llmkernel-\w+", path.parent.name)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    paths.remove_socket(f"ipc://{path}")
    assert not path.parent.exists()


def test_tcp_is_bound_on_loopback_at_a_port_that_the_system_picks():
    assert paths.bind_address("tcp", "abc") == "tcp://127.0.0.1:*"


# The runtime folder ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/dev/null", "Not a directory"),
        ("/dev/null/x", "Not a directory"),
        ("/proc/x", "No such file"),
        ("/tmp/" + 256 * "x", "File name too long"),
    ],
)
def test_a_runtime_folder_that_cannot_be_is_named_with_the_reason(monkeypatch, folder, why):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
    with pytest.raises(ConnectionProblem, match=rf"{folder} cannot be used \({why}") as caught:
        paths.runtime_folder(make=True)
    assert "Set JUPYTER_RUNTIME_DIR" in caught.value.message
    assert "chmod" not in caught.value.message


def test_a_runtime_folder_below_one_that_is_closed_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(ConnectionProblem, match=r"runtime cannot be used \(Permission denied"):
            paths.runtime_folder(make=True)
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


def test_a_fault_of_the_disk_is_no_verdict_on_the_folder(runtime_dir, monkeypatch):
    def stale(folder: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(paths, "_make_private", stale)
    with pytest.raises(OSError, match="Stale"):  # a worker goes on, and looks again later
        paths.runtime_folder(make=True)


# Private files ---------------------------------------------------------------------


@pytest.mark.parametrize("read", [False, True])
def test_a_pipe_in_the_place_of_the_log_hangs_nobody(runtime_dir, read):
    path = paths.log_path("one")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if read else None
    try:
        with pytest.raises(OSError, match="No regular file; remove it") as caught:
            paths.open_private(path)
    finally:
        if reader is not None:
            os.close(reader)
    assert caught.value.filename == str(path)


def test_whoever_looks_for_a_worker_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "none"))
    assert connection.list_workers() == []
    assert connection.running("one") is None
    connection.sweep()
    assert list(tmp_path.iterdir()) == []
    assert paths.lock_path("one").parent.is_dir()
