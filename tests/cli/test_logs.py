"""`logs` of workers that run, have left, rotate and say odd things."""

from __future__ import annotations

import pytest

from llmkernel import paths
from tests.cli.terminal import Terminal, run
from tests.conftest import stop_worker


@pytest.fixture
def log(runtime_dir):
    """The log of a worker that has left."""
    path = paths.log_path("gone")
    path.write_text("".join(f"line {number}\n" for number in range(500)))
    return path


def test_the_last_lines_are_shown(log):
    assert run("logs", "gone", "-n", "2").stdout == "line 498\nline 499\n"
    assert len(run("logs", "gone").stdout.splitlines()) == 200
    assert run("logs", "gone", "-n", "0").stdout == ""


def test_where_none_runs_the_last_one_is_meant(log):
    assert run("logs", "-n", "1").stdout == "line 499\n"


def test_a_worker_that_runs_has_written_something(scripted_worker):
    assert run("logs").stdout == paths.log_path("scripted").read_text() != ""


def test_an_unknown_name_is_an_error(log):
    done = run("logs", "nobody")
    assert done.returncode == 3
    assert "'nobody'" in done.stderr


def test_bytes_that_are_no_text_are_shown_as_far_as_they_are(log):
    log.write_bytes(b"caf\xe9\n")
    assert run("logs", "gone").stdout == "caf\ufffd\n"


def test_a_line_cannot_send_commands_to_the_terminal(log):
    log.write_text("\x1b[2Jwiped\n")
    with Terminal("logs", "gone") as terminal:
        assert terminal.end() == 0
        assert "␛[2Jwiped" in terminal.screen


def test_follow_goes_on_over_a_rotation_until_the_worker_leaves(scripted_worker):
    path = paths.log_path("scripted")
    with Terminal("logs", "-f") as terminal:
        with path.open("a") as file:
            file.write("before\n")
        terminal.until("before")
        path.rename(path.with_suffix(".log.1"))
        with path.open("a") as file:
            file.write("after\n")
        terminal.until("after")
        stop_worker(scripted_worker)
        assert terminal.end() == 0


def test_follow_ends_with_ctrl_c(scripted_worker):
    with paths.log_path("scripted").open("a") as file:
        file.write("begun\n")
    with Terminal("logs", "-f") as terminal:
        terminal.until("begun")
        terminal.interrupt()
        assert terminal.end() == 130
