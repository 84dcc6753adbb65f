"""Workers in hostile or broken surroundings: files, modes, secrets, ports, frozen processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
from pathlib import Path

import psutil
import pytest

from llmkernel import launcher, paths, protocol
from llmkernel.errors import (
    ConnectionProblem,
    LLMKernelError,
    StartFailed,
    WorkerUnresponsive,
)
from llmkernel.lock import NameLock
from llmkernel.watcher import Watcher
from tests.conftest import processes_in
from tests.process.talking import answer, config, killed, nothing_left, submit, until

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("spoil", ["mode", "link", "torn", "foreign"])
def test_a_file_that_cannot_be_trusted_is_told_and_nothing_started(
    start_worker, runtime_dir, tmp_path, spoil
):
    dead = killed(start_worker(name="one"))
    if spoil == "mode":
        dead.path.chmod(0o644)
    elif spoil == "link":
        dead.path.rename(tmp_path / "elsewhere")
        dead.path.symlink_to(tmp_path / "elsewhere")
    elif spoil == "torn":
        os.truncate(dead.path, 100)
    elif os.geteuid() == 0:
        os.chown(dead.path, 12345, -1)
    else:
        pytest.skip("giving a file away needs root")
    with pytest.raises(ConnectionProblem, match="remove it and start again"):
        launcher.start(config())
    assert processes_in(runtime_dir) == []


def test_modes_are_private_at_any_umask(runtime_dir, start_worker):
    old = os.umask(0)
    try:
        connection = start_worker(name="one")
    finally:
        os.umask(old)
    endpoint = Path(connection.endpoint.removeprefix("ipc://"))
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (runtime_dir, endpoint.parent)
    }
    assert set(modes.values()) == {0o700}
    files_ = [connection.path, Path(connection.log), paths.lock_path("one")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_} == {0o600}


def test_secrets_are_in_no_argument_no_environment_and_no_log(start_worker, runtime_dir):
    connection = start_worker("scripted:fail_at_step=8", name="one")
    with Watcher(connection) as watcher:
        submit(watcher, 20, prompt="my-private-prompt")
        assert isinstance(until(watcher, *protocol.TERMINAL), protocol.Failed)
    proc = Path(f"/proc/{connection.pid}")
    seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    seen += Path(connection.log).read_bytes()
    assert b"scripted failure" in seen, "the log should have told of the failed step"
    assert b"my-private-prompt" not in seen
    for key in (connection.client_secret_key, connection.client_public_key):
        assert key.encode() not in seen
    assert json.dumps(connection.client_secret_key).encode() in connection.path.read_bytes()


def test_tcp_listens_on_loopback_alone(start_worker, runtime_dir):
    connection = start_worker(name="one", transport="tcp")
    listening = [
        c.laddr.ip
        for c in psutil.Process(connection.pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    assert connection.endpoint.startswith("tcp://127.0.0.1:")
    assert answer(connection)


def test_ipc_listens_on_no_port(start_worker):
    connection = start_worker()
    assert psutil.Process(connection.pid).net_connections("inet") == []


def test_modules_beside_the_notebook_do_not_get_into_the_worker(
    runtime_dir, tmp_path, monkeypatch, start_worker
):
    (tmp_path / "zmq.py").write_text("raise RuntimeError('a file of the notebook')")
    (tmp_path / "logging.py").write_text("raise RuntimeError('a file of the notebook')")
    monkeypatch.chdir(tmp_path)
    assert answer(start_worker())


def test_a_name_that_is_held_and_not_served_is_told(runtime_dir, monkeypatch):
    monkeypatch.setattr(launcher, "_PATIENCE", 0.5)
    lock = NameLock.take(paths.lock_path("one"))
    assert lock is not None
    with pytest.raises(StartFailed, match="has held the name 'one'"):
        launcher.start(config())
    lock.release()


def test_a_frozen_worker_is_told_and_can_be_killed(start_worker, runtime_dir, monkeypatch):
    monkeypatch.setattr(launcher, "_PATIENCE", 1.0)
    monkeypatch.setattr(launcher, "_SILENCE", 0.4)
    monkeypatch.setattr(launcher, "_QUIET", 0.3)
    connection = start_worker(name="one")
    os.kill(connection.pid, signal.SIGSTOP)
    seen: list[str] = []
    with pytest.raises(WorkerUnresponsive, match="llmkernel stop --kill one"):
        launcher.start(config(), on_progress=lambda progress: seen.append(progress.stage))
    assert set(seen) == {"answer"}, "whoever waits is told what for"
    with pytest.raises(WorkerUnresponsive, match="has not left"):
        launcher.stop(connection, timeout=0.3)
    launcher.kill(connection)
    nothing_left(runtime_dir)


def test_a_worker_that_was_frozen_goes_on(start_worker, runtime_dir, monkeypatch):
    monkeypatch.setattr(launcher, "_SILENCE", 0.4)
    connection = start_worker(name="one")
    os.kill(connection.pid, signal.SIGSTOP)
    timer = threading.Timer(1.0, os.kill, (connection.pid, signal.SIGCONT))
    timer.start()
    assert launcher.start(config(), timeout=20) == connection
    timer.join()


def test_another_version_is_told(start_worker, runtime_dir):
    connection = start_worker(name="one")
    data = connection.path.read_bytes()
    assert b'"protocol": [\n  1,' in data
    connection.path.write_bytes(data.replace(b'"protocol": [\n  1,', b'"protocol": [\n  2,'))
    with pytest.raises(LLMKernelError, match=r"speaks protocol 2\.\d"):
        launcher.start(config())
