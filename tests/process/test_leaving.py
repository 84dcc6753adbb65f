"""How a worker leaves: when it is asked, when it is idle, when nobody can find it, when it breaks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from llmkernel import connection as files
from llmkernel import launcher, paths, protocol
from llmkernel.config import WorkerConfig
from llmkernel.lock import NameLock
from llmkernel.watcher import Watcher
from tests.conftest import processes_in, stop_worker, wait_until
from tests.process.talking import SLOW, answer, foreground, said, submit, until, worker_process

pytestmark = pytest.mark.timeout(60)

LONG = 2000
"""Tokens: half a minute of the slow model."""


def ended(process: subprocess.Popen, runtime: Path, seconds: float = 10.0) -> int:
    """Its exit code, once it and its socket and files but the log are gone."""
    code = process.wait(timeout=seconds)
    wait_until(lambda: not processes_in(runtime), seconds=5, what="its helpers to end")
    assert {path.name for path in runtime.iterdir()} <= {"llmkernel-one.log"}
    assert not any(path.is_socket() for path in (runtime.parent / "run").rglob("*"))
    return code


# Asked ---------------------------------------------------------------------------


def test_sigterm_finishes_what_runs_and_refuses_what_comes(runtime_dir):
    with foreground(SLOW) as (process, connection), Watcher(connection) as watcher:
        submit(watcher, 50, key=1)
        until(watcher, protocol.Deltas)
        process.send_signal(signal.SIGTERM)
        while not said(until(watcher, protocol.StateChange), "draining"):
            pass
        submit(watcher, 5, key=2)
        refused = until(watcher, *protocol.TERMINAL)
        finished = until(watcher, *protocol.TERMINAL)
        assert ended(process, runtime_dir) == 0
    assert isinstance(refused, protocol.Refused)
    assert (refused.id, refused.code) == (2, "draining")
    assert isinstance(finished, protocol.Finished)
    assert finished.usage.completion_tokens == 50


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)], ids=str)
def test_a_second_sigterm_and_sigquit_do_not_wait(runtime_dir, signals):
    with foreground(SLOW) as (process, connection), Watcher(connection) as watcher:
        submit(watcher, LONG)
        until(watcher, protocol.Deltas)
        for number in signals:
            process.send_signal(number)
            if len(signals) > 1:
                time.sleep(0.3)  # two at once may arrive as one
        cancelled = until(watcher, *protocol.TERMINAL)
        assert ended(process, runtime_dir) == 0
    assert isinstance(cancelled, protocol.Cancelled)
    assert cancelled.usage.completion_tokens > 0


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1])
def test_a_signal_is_heeded_while_the_engine_is_faster_than_the_loop(runtime_dir, seconds):
    """A wake-up for each step would fill the pipe that signals come through, and lose them."""
    fast = "scripted:eos_after=100000,context_length=20000,blocks=40000"
    with foreground(fast) as (process, connection), Watcher(connection) as watcher:
        for key in range(16):
            submit(watcher, 15_000, key=key)
        time.sleep(seconds)
        process.send_signal(signal.SIGQUIT)
        assert ended(process, runtime_dir) == 0


@pytest.mark.parametrize("drain", [True, False])
def test_a_client_may_stop_it(runtime_dir, drain):
    with foreground(SLOW) as (process, connection), Watcher(connection) as watcher:
        submit(watcher, 20 if drain else LONG, key=1)
        until(watcher, protocol.Deltas)
        watcher.send(protocol.Stop(id=9, drain=drain))
        until(watcher, protocol.Stopping)
        last = until(watcher, *protocol.TERMINAL)
        assert ended(process, runtime_dir) == 0
    assert isinstance(last, protocol.Finished if drain else protocol.Cancelled)


def test_watchers_are_told_that_it_leaves(runtime_dir):
    with foreground() as (process, connection), Watcher(connection) as watcher:
        until(watcher, protocol.Welcome)
        process.send_signal(signal.SIGTERM)
        while not said(until(watcher, protocol.StateChange), "draining"):
            pass
        assert ended(process, runtime_dir) == 0


def test_the_launcher_stops_with_and_without_draining(start_worker, runtime_dir):
    for drain, end in ((True, protocol.Finished), (False, protocol.Cancelled)):
        connection = start_worker(SLOW, name="one")
        with Watcher(connection) as watcher:
            submit(watcher, 30 if drain else LONG)
            until(watcher, protocol.Deltas)
            launcher.stop(connection, drain=drain)
            assert isinstance(until(watcher, *protocol.TERMINAL), end)
        assert not connection.alive
        assert not connection.path.exists()
        launcher.stop(connection)  # again is no error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=str)
def test_signals_of_a_terminal_mean_the_resident_worker_nothing(start_worker, number):
    connection = start_worker(name="one")
    for _ in range(3):
        os.kill(connection.pid, number)
    assert answer(connection)
    assert connection.alive


def test_ctrl_c_ends_a_worker_in_the_foreground(runtime_dir):
    with foreground() as (process, _):
        process.send_signal(signal.SIGINT)
        assert ended(process, runtime_dir) == 0


def test_sigterm_while_loading_does_not_wait_for_the_load(runtime_dir):
    with foreground("scripted:load_ms=30000", state="loading") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert ended(process, runtime_dir) == 0


def test_sigterm_while_it_comes_up_leaves_nothing(runtime_dir):
    for delay in (0.0, 0.02, 0.05, 0.1):
        process = worker_process()
        wait_until(
            lambda: paths.lock_path("one").exists() or process.poll() is not None,  # noqa: B023
            seconds=20,
            what="the lock",
        )
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()
            process.communicate()
        assert ended(process, runtime_dir) in (0, -signal.SIGTERM)


def test_sigterm_while_it_imports_ends_in_no_except_of_a_library(runtime_dir):
    """The signal comes inside an import whose code suppresses whatever is raised in it."""
    code = textwrap.dedent("""
        import builtins, os, runpy, signal, sys

        real = builtins.__import__

        def suppressing(name, *rest, **more):
            if name == "llmkernel.worker.service":
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                except BaseException:
                    pass
            return real(name, *rest, **more)

        builtins.__import__ = suppressing
        sys.argv[1:] = ["scripted", "--name", "one"]
        runpy.run_module("llmkernel.worker", run_name="__main__", alter_sys=True)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        try:
            assert ended(process, runtime_dir) == 0
        finally:
            process.kill()


def test_a_second_worker_of_the_same_name_is_refused(runtime_dir):
    with foreground() as (_, connection):
        second = worker_process()
        output = second.communicate(timeout=20)[0].decode()
        assert second.returncode == 75
        assert "A worker 'one' runs already" in output
        assert answer(connection)


# Idle ----------------------------------------------------------------------------


def test_an_idle_worker_leaves_after_its_time_and_not_before(runtime_dir):
    with foreground(SLOW, "--idle-timeout", "1.5") as (process, connection):
        ready = time.monotonic()
        assert ended(process, runtime_dir) == 0
        assert 0.5 <= time.monotonic() - ready <= 3.5
    assert "no work for 1.5 s" in Path(connection.log).read_text()


def test_a_worker_is_never_idle_while_it_works(runtime_dir):
    with (
        foreground(SLOW, "--idle-timeout", "1") as (process, connection),
        Watcher(connection) as watcher,
    ):
        submit(watcher, 100)  # two seconds
        assert isinstance(until(watcher, *protocol.TERMINAL), protocol.Finished)
        assert process.poll() is None
        assert ended(process, runtime_dir) == 0


def test_a_worker_is_never_idle_while_it_loads(runtime_dir):
    with foreground("scripted:load_ms=2500", "--idle-timeout", "1") as (process, connection):
        assert answer(connection)
        assert ended(process, runtime_dir) == 0


# Nobody can find it ----------------------------------------------------------------


def test_a_worker_leaves_when_its_file_vanishes(runtime_dir):
    with foreground() as (process, connection):
        connection.path.unlink()
        assert ended(process, runtime_dir, seconds=5) == 0
    assert "leaving: its connection file or socket is gone" in paths.log_path("one").read_text()


def test_a_worker_leaves_when_its_socket_vanishes(runtime_dir):
    with foreground() as (process, connection):
        Path(connection.endpoint.removeprefix("ipc://")).unlink()
        assert process.wait(timeout=5) == 0
    assert files.running("one") is None


def test_a_worker_may_have_as_many_files_open_as_its_user(runtime_dir):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 256), hard))
    try:
        with foreground() as (process, _):
            assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_leaves_with_work_in_flight_when_its_file_vanishes(runtime_dir):
    with foreground(SLOW) as (process, connection), Watcher(connection) as watcher:
        submit(watcher, LONG)
        until(watcher, protocol.Deltas)
        connection.path.unlink()
        assert isinstance(until(watcher, *protocol.TERMINAL), protocol.Cancelled)
        assert ended(process, runtime_dir, seconds=5) == 0


def test_a_worker_leaves_when_its_file_is_anothers_and_leaves_that_alone(runtime_dir):
    with foreground() as (process, connection):
        files.write(msgspec.structs.replace(connection, instance="another"))
        assert process.wait(timeout=5) == 0
        assert files.read("one").instance == "another"
        connection.path.unlink()


@pytest.mark.parametrize("spoil", ["mode", "link", "torn"])
def test_a_worker_leaves_when_its_file_can_not_be_trusted(runtime_dir, tmp_path, spoil):
    with foreground() as (process, connection):
        if spoil == "mode":
            connection.path.chmod(0o644)
        elif spoil == "link":
            connection.path.rename(tmp_path / "elsewhere")
            connection.path.symlink_to(tmp_path / "elsewhere")
        else:
            os.truncate(connection.path, 50)
        assert process.wait(timeout=5) == 0
        assert connection.path.is_symlink() or connection.path.exists()


def test_a_file_that_is_written_again_is_still_its_own(runtime_dir):
    with foreground() as (process, connection):
        files.write(connection)
        time.sleep(1.5)
        assert process.poll() is None
        assert answer(connection)


def test_a_removed_lock_is_taken_again(runtime_dir):
    with foreground() as (process, connection):
        paths.lock_path("one").unlink()
        assert launcher.start(WorkerConfig.build(model="scripted", name="one")) == connection
        wait_until(paths.lock_path("one").exists, seconds=4, what="the lock")
        assert NameLock.take(paths.lock_path("one")) is None
        assert answer(connection)
        assert process.poll() is None


def test_a_removed_lock_does_not_let_a_second_worker_in(runtime_dir):
    with foreground() as (_, connection):
        paths.lock_path("one").unlink()
        second = worker_process()
        second.communicate(timeout=20)
        assert second.returncode == 75
        assert files.find("one") == connection
        assert answer(connection)


# Broken --------------------------------------------------------------------------


def test_a_failed_load_tells_watchers_and_leaves_nothing(runtime_dir):
    process = worker_process("scripted:load_ms=1500,fail_load=broken_checkpoint")
    wait_until(lambda: files.running("one"), seconds=20, what="the connection file")
    with Watcher(files.find("one")) as watcher:
        submit(watcher, 5, key=7)
        refused = until(watcher, protocol.Refused)
        while not said(change := until(watcher, protocol.StateChange), "failed"):
            pass
    process.communicate(timeout=10)
    assert ended(process, runtime_dir) == 1
    assert isinstance(change, protocol.StateChange)
    assert change.code == "broken_checkpoint"
    assert "told not to load" in change.message
    assert isinstance(refused, protocol.Refused)
    assert refused.code == "not_ready"


@pytest.mark.parametrize("depth", [0, 1])
def test_a_lost_device_fails_everybody_and_ends_the_worker(runtime_dir, depth):
    model = f"scripted:eos_after=100000,step_ms=20,die_at_step=10,depth={depth}"
    with foreground(model) as (process, connection), Watcher(connection) as watcher:
        submit(watcher, 1000, key=1)
        submit(watcher, 1000, key=2)
        ends = [until(watcher, *protocol.TERMINAL) for _ in range(2)]
        assert ended(process, runtime_dir) == 70
    assert {(end.id, end.code) for end in ends} == {(1, "engine_died"), (2, "engine_died")}


def test_a_stuck_step_ends_the_worker(runtime_dir, monkeypatch):
    monkeypatch.setenv("LLMKERNEL_WATCHDOG", "1")
    with (
        foreground("scripted:step_ms=60000") as (process, connection),
        Watcher(connection) as watcher,
    ):
        submit(watcher, 5)
        failed = until(watcher, *protocol.TERMINAL)
        process.communicate(timeout=10)
        assert ended(process, runtime_dir) == 70
    assert isinstance(failed, protocol.Failed)
    assert failed.code == "engine_died"
    assert "in collect" in Path(connection.log).read_text(), "the log should show where it hung"


def test_one_failed_step_ends_nothing_but_its_requests(runtime_dir):
    with foreground("scripted:fail_at_step=3") as (process, connection):
        with Watcher(connection) as watcher:
            submit(watcher, 50)
            assert isinstance(until(watcher, *protocol.TERMINAL), protocol.Failed)
        assert answer(connection)
        assert process.poll() is None


def test_a_killed_worker_is_noticed_by_whoever_waits_for_it(runtime_dir):
    with foreground("scripted:load_ms=30000", state="loading") as (process, _):
        timer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        with pytest.raises(launcher.StartFailed, match="went away while it was loading"):
            launcher.start(WorkerConfig.build(model="scripted:load_ms=30000", name="one"))
        timer.wait()
    files.clear("one")


def test_a_worker_that_nobody_waits_for_stays(start_worker):
    """The one who started it may end; its pipe is closed, and nothing happens."""
    connection = start_worker("scripted", name="one")
    time.sleep(0.3)
    assert answer(connection)
    stop_worker(connection)


def test_a_worker_that_was_killed_while_it_loaded_is_said_to_have_been(runtime_dir):
    def kill(progress):
        if progress.stage == "read":
            os.kill(files.running("one").pid, signal.SIGKILL)

    with pytest.raises(launcher.StartFailed, match="so it was killed"):
        launcher.start(
            WorkerConfig.build(model="scripted:load_ms=30000", name="one"), on_progress=kill
        )
    files.clear("one")
