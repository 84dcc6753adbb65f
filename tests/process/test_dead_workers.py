"""What dead workers leave, and what the next one makes of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from llmkernel import connection as files
from llmkernel import launcher, paths, processes, protocol
from llmkernel.errors import (
    StartFailed,
)
from llmkernel.processes import Identity
from llmkernel.watcher import Watcher
from tests.conftest import processes_in, stop_worker, wait_until
from tests.process.talking import SLOW, answer, config, killed, nothing_left, submit, until

pytestmark = pytest.mark.timeout(60)


def test_a_killed_workers_file_is_recognised_and_replaced(start_worker, runtime_dir):
    dead = killed(start_worker(name="one"))
    assert dead.path.exists()
    assert files.list_workers() == []
    fresh = start_worker(name="one")
    assert fresh.instance != dead.instance
    assert files.find("one") == fresh
    assert not Path(dead.endpoint.removeprefix("ipc://")).exists()
    assert answer(fresh)


def test_what_other_workers_left_is_swept_away(start_worker, runtime_dir):
    dead = killed(start_worker(name="other"))
    living = start_worker(name="living")
    start_worker(name="one")
    assert not dead.path.exists()
    assert not paths.lock_path("other").exists()
    assert [connection.name for connection in files.list_workers()] == ["living", "one"]
    assert answer(living)


def test_a_reused_process_id_is_neither_attached_to_nor_killed(start_worker, runtime_dir):
    dead = killed(start_worker(name="one"))
    with subprocess.Popen(["sleep", "60"]) as bystander:
        start = processes.start_time(bystander.pid)
        assert start is not None
        reused = Identity(bystander.pid, start + 1, processes.boot_id())
        files.write(msgspec.structs.replace(dead, process=reused))
        launcher.stop(files.read("one"))
        launcher.kill(files.read("one"))
        fresh = start_worker(name="one")
        assert fresh.pid != bystander.pid
        assert bystander.poll() is None
        bystander.kill()


def test_a_worker_is_waited_for_that_is_on_its_way_out(start_worker, runtime_dir):
    first = start_worker(SLOW, name="one")
    with Watcher(first) as watcher:
        submit(watcher, max_tokens=60)
        until(watcher, protocol.Deltas)
        os.kill(first.pid, signal.SIGTERM)
        second = start_worker(SLOW, name="one")
        finished = until(watcher, *protocol.TERMINAL)
    assert isinstance(finished, protocol.Finished)
    assert second.pid != first.pid
    assert not first.alive


def kill(processes):
    """Some have ended by themselves: a worker that comes up has parents for a moment."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def test_killing_a_worker_at_any_moment_leaves_nothing_that_hinders_the_next(runtime_dir):
    """Around each of the moments in which the world changes, ten times."""
    chance = random.Random(1)
    reached = {
        "process": lambda: processes_in(runtime_dir),
        "lock": paths.lock_path("one").exists,
        "log": lambda: "worker one" in paths.log_path("one").read_text(),
        "file": lambda: files.running("one"),
    }
    for number in range(20):
        paths.log_path("one").write_text("")
        with ThreadPoolExecutor() as pool:
            start = pool.submit(launcher.start, config("scripted:load_ms=50"), timeout=20)
            moment = sorted(reached)[number % len(reached)]
            wait_until(reached[moment], seconds=10, what=moment)
            time.sleep(chance.uniform(0, 0.1))
            kill(processes_in(runtime_dir))
            error = start.exception()
            assert error is None or isinstance(error, StartFailed), error
        kill(processes_in(runtime_dir))  # one that had not been seen in time
        wait_until(lambda: not processes_in(runtime_dir), seconds=5, what="the end")
    survivor = launcher.start(config(), timeout=20)
    assert answer(survivor)
    stop_worker(survivor)
    nothing_left(runtime_dir)
