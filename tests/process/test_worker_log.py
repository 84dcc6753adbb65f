"""A worker's log: private, bounded, complete."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import llmkernel
from llmkernel import paths
from llmkernel.worker.logs import RotatingLog
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(30)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("name", logging.INFO, "", 0, text, None, None)


def test_a_log_is_rotated_and_bounded_and_private(tmp_path):
    old = os.umask(0)
    try:
        log = RotatingLog(tmp_path / "x.log", max_bytes=1000, backups=2, capture=False)
        for number in range(100):
            log.emit(record(f"{number:03} " + "x" * 90))
        log.close()
    finally:
        os.umask(old)
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == ["x.log", "x.log.1", "x.log.2"]
    assert all(path.stat().st_size <= 1000 for path in written)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert "099 " in written[0].read_text()


def test_a_log_goes_on_where_the_last_worker_stopped(tmp_path):
    path = tmp_path / "x.log"
    for text in ("first", "second"):
        log = RotatingLog(path, max_bytes=10000, backups=1, capture=False)
        log.emit(record(text))
        log.close()
    assert path.read_text() == "first\nsecond\n"


def test_a_log_is_never_written_through_a_link(tmp_path):
    (tmp_path / "x.log").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        RotatingLog(tmp_path / "x.log", max_bytes=1000, backups=1, capture=False)
    assert not (tmp_path / "target").exists()


def test_half_a_surrogate_pair_does_not_stop_the_log(tmp_path):
    log = RotatingLog(tmp_path / "x.log", max_bytes=1000, backups=1, capture=False)
    log.emit(record("odd \ud800 text"))
    log.close()
    assert (tmp_path / "x.log").read_text() == "odd \\ud800 text\n"


CAPTURED = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from llmkernel.worker import logs
logs.MAX_BYTES = 2000
logs.configure(Path(sys.argv[1]), capture=True)
for number in range(60):
    logging.getLogger("llmkernel.test").info("%03d %s", number, "x" * 80)
print("printed", flush=True)
os.write(2, b"from a library in C\\n")
subprocess.run(["echo", "from a child"])
warnings.warn("a warning")
logging.getLogger("transformers").info("about myself")
raise RuntimeError("the last words")
"""


def test_everything_that_is_said_follows_the_log_over_rotations(tmp_path):
    path = tmp_path / "x.log"
    done = subprocess.run(
        [sys.executable, "-c", CAPTURED, str(path)], capture_output=True, check=False
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    text = Path(f"{path}.1").read_text() + path.read_text()
    for said in ("printed", "from a library in C", "from a child", "a warning", "the last words"):
        assert said in text
    assert "about myself" not in text


def test_a_bad_log_level_is_told_before_anything_starts(runtime_dir, monkeypatch):
    from llmkernel import launcher
    from llmkernel.config import WorkerConfig
    from llmkernel.errors import InvalidRequest

    monkeypatch.setenv("LLMKERNEL_LOG_LEVEL", "loud")
    with pytest.raises(InvalidRequest, match="LLMKERNEL_LOG_LEVEL='loud'"):
        launcher.start(WorkerConfig.build(model="scripted", name="one"), timeout=20)
    assert not paths.connection_path("one").exists()


def test_debug_is_asked_for_by_the_environment(start_worker, monkeypatch):
    monkeypatch.setenv("LLMKERNEL_LOG_LEVEL", "error")
    connection = start_worker(name="one")
    assert " INFO " not in Path(connection.log).read_text()


def test_a_worker_that_is_asked_writes_where_its_threads_are_and_goes_on(scripted_worker):
    os.kill(scripted_worker.pid, signal.SIGUSR1)
    log = Path(scripted_worker.log)
    wait_until(lambda: log.read_text().count("most recent call first") > 1, seconds=10, what="it")
    assert "/worker/engine.py" in log.read_text()
    with llmkernel.connect("scripted") as client:
        assert client.generate("hello", max_tokens=3).text
