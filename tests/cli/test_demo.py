"""`demo` on the embedded model: in a log, in a terminal, interrupted, beside a worker of its name."""

from __future__ import annotations

import re

import pytest

from llmkernel import connection
from tests.cli.terminal import Terminal, run

pytestmark = pytest.mark.timeout(240)


def test_a_log_shows_answers_a_batch_figures_and_where_to_go_next(runtime_dir):
    done = run("demo", timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "> What is 17 + 25?\n17 + 25 = 42\n" in done.stdout
    assert len(re.findall(r"tokens · [\d.]+ tokens/s · first after [\d.]+ s", done.stdout)) == 3
    tokens, steps = map(
        int, re.search(r"(\d+) tokens in .* from (\d+) steps", done.stdout).groups()
    )
    assert tokens > 2 * steps  # several answers in each step: one batch
    last = done.stdout.rstrip().splitlines()[-1]
    assert "jupyter lab" in last
    assert connection.list_workers() == []


def test_a_worker_that_ran_before_stays(start_worker):
    worker = start_worker("demo", name="demo-tour")
    with Terminal("demo") as terminal:
        terminal.until("Attached after", seconds=60)
        assert terminal.end(seconds=120) == 0
        assert "The worker stays." in terminal.screen
    assert worker.alive


def test_ctrl_c_stops_the_worker_that_was_started(runtime_dir):
    with Terminal("demo") as terminal:
        terminal.until("> What is llmkernel", seconds=90)
        terminal.interrupt()
        assert terminal.end(seconds=60) == 130
        assert "Traceback" not in terminal.screen
    assert connection.list_workers() == []
