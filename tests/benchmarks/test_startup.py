"""`benchmarks.startup`: two starts by stages and the attachments, each in a process of its own."""

from __future__ import annotations

import sys

import pytest

from benchmarks import command, startup
from tests.benchmarks.shown import shown


@pytest.mark.slow
def test_starts_and_attachments_are_measured(measured):
    found, printed = measured("startup", "--repeats", "1", "--batch", "2")
    for start in (found["first_start"], found["second_start"]):
        assert sum(start["seconds"].values()) == pytest.approx(start["first_token"])
        assert {"import", "read", "warm_up", "first token"} < set(start["seconds"])
        assert start["ready"] < start["first_token"] < start["process"]
    assert 0 < found["attach"]["imported"] < found["attach"]["ready"]
    assert printed.startswith("first start: first token after")
    assert "| warm_up " in shown(found).text


@pytest.mark.parametrize("kept", [True, False])
def test_a_python_that_keeps_no_bytecode_is_said(kept, monkeypatch, capsys):
    monkeypatch.setattr(sys, "dont_write_bytecode", not kept)
    startup.say_of_bytecode()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("keep no bytecode" in printed.err) == (not kept)


def test_a_stage_lasts_until_the_next_one_begins():
    found = {"imported": 0.5, "stages": {"read": 2.0, "warm_up": 5.0}, "ready": 6.0, "first_token": 6.5}  # fmt: skip
    assert startup.stages(found) == {
        "import": 0.5,
        "start": 1.5,
        "read": 3.0,
        "warm_up": 1.0,
        "first token": 0.5,
    }


def test_a_process_that_cannot_answer_is_no_figure(runtime_dir, capfd):
    with pytest.raises(command.Refused, match="without an answer"):
        startup.open_in_new_process({"no_setting": 1}, [1])
    assert "no_setting" in capfd.readouterr().err


def test_memory_beyond_is_what_nobody_asked_for(scripted_worker):
    from llmkernel.client import Client

    with Client(scripted_worker) as client:
        model = client.status().model
        asked = model.weights_bytes + model.kv_cache_bytes
        found = startup.memory(client, 2 * asked)
    assert (found["beyond_bytes"], found["share_beyond"]) == (asked, 1.0)
