"""start, list, status and stop, against real workers with a scripted model."""

from __future__ import annotations

import json
import os
import signal

import pytest

from llmkernel import connection
from llmkernel.connection import Connection
from tests.cli.terminal import Terminal, run
from tests.conftest import wait_until

SLOW = "scripted:step_ms=20,eos_after=100000"


@pytest.fixture
def clean(runtime_dir):
    """A runtime folder whose workers are stopped by the command itself, whatever happens."""
    yield runtime_dir
    run("stop", "--all", "--now")


def secrets(worker: Connection) -> list[str]:
    return [worker.client_secret_key, worker.client_public_key, worker.server_public_key]


def test_start_returns_when_the_worker_is_ready(clean):
    done = run("start", "scripted")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("scripted is ready: scripted (")
    assert connection.find().name == "scripted"


def test_a_second_start_attaches(clean):
    first = json.loads(run("start", "scripted", "--json").stdout)
    second = json.loads(run("start", "scripted", "--json").stdout)
    assert (first["started"], second["started"]) == (True, False)
    assert first["pid"] == second["pid"]
    assert "already runs" in run("start", "scripted").stdout


def test_every_setting_reaches_the_worker(clean):
    arguments = ["--context-length", "512", "--max-concurrent", "3", "--queue", "7"]
    done = run("start", "scripted", "--name", "small", *arguments, "--json")
    found = json.loads(done.stdout)
    assert found["name"] == "small"
    model = found["model"]
    assert (model["context_length"], model["max_concurrent"], model["queue"]) == (512, 3, 7)


def test_other_settings_for_a_name_that_is_taken_are_a_conflict(clean):
    run("start", "scripted")
    done = run("start", "scripted", "--queue", "7", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["code"] == "configuration_conflict"
    assert "queue" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scripted", "--name", "No Name"], "cannot name a worker"),
        (["scripted", "--kv-cache", "lots"], "is no size"),
        (["scripted", "--queue", "0"], "queue must be from 1 to"),
        (["scripted", "--device", "tpu"], "device must be"),
        (["scripted:oops=1"], "oops"),
    ],
)
def test_a_bad_setting_is_refused_by_name(clean, arguments, says):
    done = run("start", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert connection.list_workers() == []


def test_a_model_that_does_not_load_says_why_and_leaves_nothing(clean):
    done = run("start", "scripted:fail_load=not_enough_memory", "--name", "big")
    assert done.returncode == 5
    assert "told not to load" in done.stderr
    assert "kv_cache" in done.stderr  # the hint
    assert connection.list_workers() == []


def test_a_terminal_sees_how_far_loading_is(clean):
    with Terminal("start", "scripted:load_ms=1500", "--name", "slow") as terminal:
        terminal.until(r"reading: +\d+%")
        assert terminal.end() == 0
        assert "slow is ready" in terminal.screen


def test_ctrl_c_while_loading_ends_the_worker_that_was_started(clean):
    with Terminal("start", "scripted:load_ms=60000", "--name", "slow") as terminal:
        terminal.until(r"reading")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.screen
    wait_until(lambda: connection.list_workers() == [], seconds=10, what="the worker to leave")


def test_start_gives_up_after_its_time(clean):
    done = run("start", "scripted:load_ms=60000", "--name", "slow", "--timeout", "1")
    assert done.returncode == 5
    assert "not ready within 1 s" in done.stderr


def test_a_list_of_nothing_is_no_error(runtime_dir):
    done = run("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "llmkernel start" in done.stderr
    assert json.loads(run("list", "--json").stdout) == {"workers": []}


def test_list_shows_every_worker_and_the_one_that_hangs(start_worker):
    start_worker(name="one")
    two = start_worker(name="two")
    os.kill(two.pid, signal.SIGSTOP)
    found = json.loads(run("list", "--json").stdout)["workers"]
    os.kill(two.pid, signal.SIGCONT)
    assert [(worker["name"], worker["state"]) for worker in found] == [
        ("one", "ready"),
        ("two", "unresponsive"),
    ]
    rows = run("list").stdout.splitlines()
    assert rows[0].split()[:3] == ["name", "model", "state"]
    assert [row.split()[0] for row in rows[1:]] == ["one", "two"]


def test_status_says_what_the_worker_took(scripted_worker):
    done = run("status")
    assert done.returncode == 0
    shown = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert shown["name"].strip() == "scripted"
    assert shown["context"].strip() == "2,048 tokens"
    assert str(scripted_worker.pid) in shown["process"]


def test_status_for_scripts_has_every_figure_and_no_key(scripted_worker):
    done = run("status", "scripted", "--json")
    found = json.loads(done.stdout)
    assert found["state"] == "ready"
    assert found["load"]["running"] == 0
    assert found["model"]["kv_blocks"] > 0
    everything = done.stdout + run("list", "--json").stdout
    assert not [key for key in secrets(scripted_worker) if key in everything]


@pytest.mark.parametrize(
    "command", [["status"], ["stop"], ["generate", "x"], ["chat"], ["bench"], ["logs"]]
)
def test_without_a_worker_the_hint_is_to_start_one(runtime_dir, command):
    done = run(*command)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "llmkernel start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["status", "nobody"],
        ["stop", "nobody"],
        ["generate", "x", "-m", "nobody"],
        ["logs", "nobody"],
    ],
)
def test_an_unknown_worker_is_named(scripted_worker, command):
    done = run(*command)
    assert done.returncode == 3
    assert "'nobody'" in done.stderr


def test_of_several_workers_one_must_be_named(start_worker):
    start_worker(name="one")
    start_worker(name="two")
    done = run("generate", "x")
    assert done.returncode == 3
    assert "one, two" in done.stderr
    assert run("generate", "x", "-m", "two", "-n", "4").returncode == 0


def test_stop_waits_until_the_process_is_gone(start_worker):
    worker = start_worker(name="one")
    done = run("stop", "--json")
    assert json.loads(done.stdout) == {"stopped": ["one"]}
    assert not worker.alive


def test_stop_all_stops_all_and_none_is_no_error(start_worker):
    workers = [start_worker(name=name) for name in ("one", "two")]
    done = run("stop", "--all")
    assert done.returncode == 0
    assert not any(worker.alive for worker in workers)
    assert json.loads(run("stop", "--all", "--json").stdout) == {"stopped": []}


def test_a_name_and_all_together_are_refused(scripted_worker):
    done = run("stop", "scripted", "--all")
    assert done.returncode == 2
    assert scripted_worker.alive


def test_stop_now_does_not_wait_for_what_runs(start_worker):
    worker = start_worker(SLOW, name="busy")
    with Terminal("generate", "x", "-n", "2000") as terminal:
        terminal.until("[a-z]+ ")
        assert run("stop", "--now").returncode == 0
        assert not worker.alive
        assert terminal.end() in (1, 4)
        assert "Error:" in terminal.screen


def test_kill_ends_a_worker_that_hangs(start_worker):
    worker = start_worker(name="one")
    os.kill(worker.pid, signal.SIGSTOP)
    done = run("status", "one")
    assert done.returncode == 4
    assert "llmkernel stop --kill one" in done.stderr
    done = run("stop", "one", "--kill")
    assert done.returncode == 0, done.stderr
    assert not worker.alive
    assert not worker.path.exists()


def test_a_worker_that_does_not_leave_is_not_called_gone(start_worker, monkeypatch):
    from click.testing import CliRunner

    from llmkernel import launcher
    from llmkernel.cli import program
    from llmkernel.errors import WorkerUnresponsive

    start_worker(name="one")
    start_worker(name="two")

    def stay(worker, **_):
        raise WorkerUnresponsive(f"{worker.name} stays")

    monkeypatch.setattr(launcher, "stop", stay)
    done = CliRunner().invoke(program, ["stop", "--all"])
    assert "No worker runs" not in done.output
    told = done.output + str(done.exception)
    assert "one stays" in told
    assert "two stays" in told


def test_one_that_came_after_a_worker_on_its_way_out_is_new(start_worker):
    model = "scripted:step_ms=20,eos_after=100000"
    leaving = start_worker(model, name="leaving")
    with Terminal("generate", "x", "-n", "100") as terminal:
        terminal.until("[a-z]+ ")
        os.kill(leaving.pid, signal.SIGTERM)
        done = run("start", model, "--name", leaving.name)
        assert done.returncode == 0, done.stderr
        assert "is ready" in done.stdout
        terminal.end()
    run("stop", leaving.name)
