"""A benchmark that is told to end leaves no checkpoint and no worker behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.conftest import ROOT


@pytest.mark.slow
def test_told_to_end_it_takes_its_checkpoint_and_its_worker_along(
    runtime_dir: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "benchmarks.latency",
        "--shape",
        "tiny",
        "--repeats",
        "500",
    ]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert "medians of 500" in running.stdout.readline()  # the worker is ready
        assert list(tmp_path.glob("lk-bench-*/tiny/*.safetensors"))
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("lk-bench-*")) == []
    assert list(runtime_dir.glob("llmkernel-*.log")) == []


SLOW = """
import time
from benchmarks import apart, command, serving
from benchmarks.shapes import SHAPES

def build(_function, path, _shape):
    path.mkdir()
    print("builds", flush=True)
    call(time.sleep, 60)

def main():
    with serving.checkpoint(SHAPES["tiny"], None):
        pass

if __name__ == "__main__":
    call, apart.call = apart.call, build
    command.run(main)
"""


def test_told_to_end_while_it_builds_it_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "builds\n"
        time.sleep(2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("lk-bench-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "last"), [("gateway", "serve"), ("overhead", "llmkernel.worker")])
def test_told_to_end_it_takes_all_that_it_started_along(
    name: str, last: str, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", f"benchmarks.{name}"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "LLMKERNEL_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        try:
            deadline = time.monotonic() + 60
            while not (there := ran(last, started_in(tmp_path))) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert there
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 128 + signal.SIGTERM
            assert started_in(tmp_path) == []
        finally:
            for process in started_in(tmp_path):
                process.kill()
    assert list(tmp_path.glob("lk-*")) == []


def ran(argument: str, processes: list[psutil.Process]) -> bool:
    """Whether one of them was started with an argument."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if argument in process.cmdline():
                return True
    return False


def started_in(folder: Path) -> list[psutil.Process]:
    """Processes whose mark in the environment is `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LLMKERNEL_TEST") == str(folder):
                found.append(process)
    return found
