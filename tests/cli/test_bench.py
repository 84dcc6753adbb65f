"""`bench`: what it counts, against a worker of known speed."""

from __future__ import annotations

import json

import pytest

from tests.cli.terminal import run

FIFTY_A_SECOND = "scripted:step_ms=20,eos_after=100000"


def test_it_counts_every_token_of_every_stream(scripted_worker):
    done = run("bench", "-c", "1,3", "--prompt-tokens", "16", "-n", "8", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["load"] == {"prompt_tokens": 16, "new_tokens": 8, "rounds": 2}
    assert [(one["width"], one["requests"], one["tokens"]) for one in found["measured"]] == [
        (1, 2, 16),
        (3, 6, 48),
    ]


def test_a_worker_of_fifty_steps_a_second_is_not_measured_as_faster(start_worker):
    start_worker(FIFTY_A_SECOND)
    arguments = ["-c", "1,4", "--prompt-tokens", "8", "-n", "25", "--rounds", "1", "--json"]
    one, four = json.loads(run("bench", *arguments).stdout)["measured"]
    assert one["tokens_per_second"] < 51
    assert one["gap_p50"] > 0.019
    assert one["tokens_per_second"] < four["tokens_per_second"] < 204
    assert one["first_token_p50"] <= one["first_token_p95"] < one["seconds"]


def test_the_table_has_a_row_for_each_width(scripted_worker):
    rows = run("bench", "-c", "1,2", "--prompt-tokens", "8", "-n", "4").stdout.splitlines()
    assert rows[1].split()[:3] == ["streams", "tokens/s", "each"]
    assert [row.split()[0] for row in rows[2:]] == ["1", "2"]
    assert rows[0].endswith("2 requests a stream")


def test_one_request_is_one_request(scripted_worker):
    arguments = ["-c", "1", "--prompt-tokens", "8", "-n", "4", "--rounds", "1"]
    assert run("bench", *arguments).stdout.splitlines()[0].endswith("1 request a stream")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-c", "many"], "numbers of streams"),
        (["-c", "0"], "numbers of streams"),
        (["-c", "1,"], "numbers of streams"),
        (["--prompt-tokens", "4000"], "more than the 2048"),
        (["-n", "1"], "--max-tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused(scripted_worker, arguments, says):
    done = run("bench", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
