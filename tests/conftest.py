"""Fixtures that several rooms share: a runtime folder of one's own and real scripted workers."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from llmkernel.connection import Connection

# Without a GPU Triton's kernels are interpreted; it must know before anything imports it.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Tests keep weights for themselves, and so do the workers that they start.
os.environ["LLMKERNEL_CACHE"] = tempfile.mkdtemp(prefix="lk-cache-")
atexit.register(shutil.rmtree, os.environ["LLMKERNEL_CACHE"], ignore_errors=True)
# A busy machine, or the first use of Hypothesis's tables of characters, is no fault of a test;
# each test has a time limit of its own.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder for this test alone, in this process and in the ones it starts.

    Whatever process still runs in it at the end is killed, and fails the test. The
    path is short, as that of a socket must be.
    """
    with tempfile.TemporaryDirectory(prefix="lk-") as folder:
        runtime, sockets = Path(folder) / "runtime", Path(folder) / "run"
        runtime.mkdir(mode=0o700)
        sockets.mkdir(mode=0o700)
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
        try:
            yield runtime
        finally:
            left = kill_all_in(runtime)
        assert left == [], "the test left these processes behind"


@pytest.fixture
def start_worker(runtime_dir: Path) -> Iterator[Callable[..., Connection]]:
    """Starts workers, by default a scripted one, and stops them after the test.

    `start_worker(model="scripted:key=value,...", **settings)` returns the Connection
    of a ready worker.
    """
    from llmkernel import launcher
    from llmkernel.config import WorkerConfig

    started: list[Connection] = []

    def start(model: str = "scripted", **settings: object) -> Connection:
        config = WorkerConfig.build(model=model, **settings)
        started.append(launcher.start(config, timeout=60))
        return started[-1]

    yield start
    for connection in started:
        stop_worker(connection)


@pytest.fixture
def scripted_worker(start_worker: Callable[..., Connection]) -> Connection:
    """A ready worker that serves the scripted model; it is stopped after the test."""
    return start_worker(name="scripted")


def stop_worker(connection: Connection) -> None:
    """End a worker at once and wait until its process is gone; one that stays says where it is."""
    with contextlib.suppress(ProcessLookupError):
        if connection.alive:
            os.kill(connection.pid, signal.SIGCONT)
            os.kill(connection.pid, signal.SIGQUIT)
    try:
        wait_until(lambda: not connection.alive, seconds=10, what="the worker to leave")
    except AssertionError:
        with contextlib.suppress(ProcessLookupError):  # it has left just now
            os.kill(connection.pid, signal.SIGUSR1)
        time.sleep(1)
        print(Path(connection.log).read_text())
        raise


def wait_until(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Look every 10 ms; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def processes_in(runtime: Path) -> list[psutil.Process]:
    """The other processes that were given this runtime folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            given = process.environ().get("JUPYTER_RUNTIME_DIR")
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if given == str(runtime) and process.pid != os.getpid() and not zombie:
                found.append(process)
    return found


def kill_all_in(runtime: Path) -> list[psutil.Process]:
    """Kill what still runs in a runtime folder after a moment's grace; returns what it was."""
    psutil.wait_procs(processes_in(runtime), timeout=2)  # helpers end a moment after their worker
    killed = processes_in(runtime)
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=5)
    return killed
