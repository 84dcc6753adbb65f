"""Which process is which, when ids are used again and names are chosen to deceive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmkernel import processes
from llmkernel.processes import Identity, own_identity

pytestmark = pytest.mark.timeout(30)


def test_a_process_knows_itself():
    assert own_identity().alive
    assert own_identity() == own_identity()


def test_a_process_that_never_was_does_not_live():
    assert processes.start_time(2**22 + 1) is None
    assert not Identity(2**22 + 1, 1, processes.boot_id()).alive


def test_systems_without_proc_are_asked_through_psutil():
    assert processes._psutil_start(os.getpid()) == processes._psutil_start(os.getpid())
    assert processes._psutil_start(2**22 + 1) is None


def test_a_zombie_does_not_live():
    process = subprocess.Popen([sys.executable, "-c", ""])
    identity = Identity(process.pid, processes.start_time(process.pid) or 0, processes.boot_id())
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
        assert Path(f"/proc/{process.pid}").exists()
        assert not identity.alive
    finally:
        process.wait()


def test_a_process_name_cannot_fake_a_start_time(tmp_path):
    """The name in /proc/<pid>/stat may hold brackets and blanks."""
    program = tmp_path / "x) Z 1 1 (y"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "10"])
    try:
        start = processes.start_time(process.pid)
        assert start is not None
        assert start >= own_identity().start_time
    finally:
        process.kill()
        process.wait()
