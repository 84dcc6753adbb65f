"""The lock on a name: one holder at any time, whatever happens to the file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmkernel import lock as lock_module
from llmkernel import paths
from llmkernel.errors import ConnectionProblem
from llmkernel.lock import NameLock

pytestmark = pytest.mark.timeout(30)


def test_a_name_is_locked_once(runtime_dir):
    path = paths.lock_path("one")
    first = NameLock.take(path)
    assert first is not None
    assert NameLock.take(path) is None
    first.release()
    assert not path.exists()
    second = NameLock.take(path)
    assert second is not None
    second.release()


def test_a_lock_dies_with_its_holder(runtime_dir):
    path = paths.lock_path("one")
    code = (
        "import sys, time; from pathlib import Path; from llmkernel.lock import NameLock\n"
        f"lock = NameLock.take(Path({str(path)!r})); print(bool(lock), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert NameLock.take(path) is None
    finally:
        holder.kill()
        holder.communicate()
    lock = NameLock.take(path)
    assert lock is not None
    lock.release()


def test_a_lock_on_a_removed_file_is_no_lock_on_the_name(runtime_dir):
    path = paths.lock_path("one")
    first = NameLock.take(path)
    assert first is not None
    assert first.in_place
    path.unlink()
    assert not first.in_place
    second = NameLock.take(path)
    assert second is not None
    assert not first.retake()
    second.release()
    assert first.retake()
    assert first.in_place
    first.release()


def test_a_release_leaves_the_lock_of_the_next_holder_alone(runtime_dir):
    path = paths.lock_path("one")
    first = NameLock.take(path)
    assert first is not None
    path.unlink()
    second = NameLock.take(path)
    first.release()
    assert second is not None
    assert second.in_place
    second.release()


def test_a_lock_that_is_removed_while_it_is_being_taken_is_taken_anew(runtime_dir, monkeypatch):
    path = paths.lock_path("one")
    first = NameLock.take(path)
    assert first is not None
    opened = lock_module._open

    def open_and_be_late(path: Path) -> int:
        fd = opened(path)
        first.release()  # only the first time: it is not ours any more after that
        return fd

    monkeypatch.setattr(lock_module, "_open", open_and_be_late)
    second = NameLock.take(path)
    assert second is not None
    assert second.in_place
    assert NameLock.take(path) is None
    second.release()


def test_a_link_or_a_foreign_file_is_no_lock(runtime_dir, tmp_path):
    path = paths.lock_path("one")
    path.symlink_to(tmp_path / "target")
    with pytest.raises(ConnectionProblem, match="cannot be used as a lock"):
        NameLock.take(path)
    assert not (tmp_path / "target").exists()
    path.unlink()
    if os.geteuid() == 0:
        path.touch()
        os.chown(path, 12345, -1)
        with pytest.raises(ConnectionProblem, match="another user"):
            NameLock.take(path)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "set JUPYTER_RUNTIME_DIR"),
        (errno.ENOSPC, "set JUPYTER_RUNTIME_DIR"),
        (errno.EACCES, "set JUPYTER_RUNTIME_DIR"),
        (errno.EMFILE, "Try again"),
    ],
)
def test_what_is_not_there_need_not_be_removed(runtime_dir, monkeypatch, number, advice):
    path = paths.lock_path("one")

    def fail(*_: object) -> int:  # as on a read-only or full disk, which cannot be had here
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(ConnectionProblem, match=os.strerror(number)) as caught:
            NameLock.take(path)
    assert advice in caught.value.message
    assert "Remove" not in caught.value.message


def test_what_is_in_the_way_of_a_lock_is_to_be_removed(runtime_dir):
    path = paths.lock_path("one")
    path.mkdir()
    with pytest.raises(ConnectionProblem, match="Remove it and try again"):
        NameLock.take(path)
