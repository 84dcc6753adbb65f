"""The card of a worker: figures that a person looks for, once or as they change."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from queue import Empty
from types import SimpleNamespace

import pytest

from llmkernel.notebook.card import card, gone, line
from llmkernel.notebook.tables import HTML, PLAIN
from llmkernel.protocol import Load, ModelInfo, StatusReport
from tests.notebook.page import OwnPage
from tests.notebook.test_markdown import ATTACKS

pytestmark = pytest.mark.timeout(90)
WORKER = SimpleNamespace(name="big", pid=7, log="/log", model="owner/model")


def report(name="owner/model", **load):
    model = ModelInfo(
        model=name, quantization="nf4", dtype="bfloat16", device="cuda:0", weights_bytes=5_500_000_000,
        kv_cache_bytes=10**9, kv_blocks=101, block_size=16, max_concurrent=64, queue=512,
    )  # fmt: skip
    return StatusReport(
        id=1, state="ready", name="big", instance="x", pid=7, uptime=200.0, model=model,
        load=Load(**load), rss_bytes=10**9, device_bytes=8 * 10**9,
    )  # fmt: skip


BUSY = {
    "running": 32, "waiting": 5, "free_blocks": 50, "cached_blocks": 25, "prompt_tokens": 400,
    "cached_tokens": 100, "tokens_per_second": 1234.5,
}  # fmt: skip


def test_the_card_has_the_figures():
    text = OwnPage(card(WORKER, report(**BUSY))[HTML]).text
    for part in ("big", "●ready", "nf4,bfloat16", "5.5GB", "8.0GB", "32of64", "5of512"):
        assert part in text, part
    for part in ("1234.5", "25%ofprompts", "50%of1.0GB"):
        assert part in text, part


def test_blocks_that_can_be_found_again_are_in_use_where_they_have_an_owner():
    busy = BUSY | {"free_blocks": 60, "cached_blocks": 95}
    assert "40%of1.0GB" in OwnPage(card(WORKER, report(**busy))[HTML]).text


def test_the_text_has_them_too():
    text = card(WORKER, report(**BUSY))[PLAIN]
    for part in ("owner/model", "nf4", "32 running, 5 waiting", "1234.5 tokens/s", "25% of prompt"):
        assert part in text, part
    assert line(report(**BUSY)) == (
        "ready · 32 running · 5 waiting · 1234.5 tokens/s · cache hits 25% · 8.0 GB"
    )


def test_before_the_first_prompt_there_is_no_rate_and_while_loading_no_model():
    assert "cache hits -" in line(report())
    loading = StatusReport(id=1, state="loading", name="b", instance="x", pid=7, uptime=1.0)
    assert OwnPage(card(WORKER, loading)[HTML]).dangers == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_name_of_a_model_is_text(attack):
    assert OwnPage(card(WORKER, report(attack))[HTML]).dangers == []


# in a kernel ------------------------------------------------------------------------------------


def test_without_watch_it_is_shown_once(notebook, scripted_worker):
    cell = notebook.must("%llm status")
    assert len(cell.displays) == 1
    assert "Batch" in cell.displays[0]["data"]["text/html"]
    assert "ready" in cell.text


def updates(notebook, sent, over, seconds=20):
    """The cards that come behind a cell, until one of them is what was waited for."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = notebook.client.get_iopub_msg(timeout=seconds)
        if message["parent_header"].get("msg_id") != sent:
            continue
        if message["msg_type"] == "update_display_data":
            found.append(message["content"]["data"]["text/plain"])
            if over(found[-1]):
                return found
    raise AssertionError(f"it did not come: {found[-1:]}")


def test_it_changes_behind_its_cell_while_others_run(notebook, start_worker):
    worker = start_worker("scripted:step_ms=10,eos_after=1500")
    sent = notebook.send("%llm status")
    assert "0 running" in notebook.follow(sent).text
    busy = notebook.send("%%generate -t 0 -o out\nHi")
    updates(notebook, sent, lambda text: "1 running" in text)
    notebook.interrupt()
    notebook.follow(busy)
    os.kill(worker.pid, signal.SIGKILL)
    updates(notebook, sent, lambda text: "gone" in text)


def test_the_card_of_an_earlier_cell_stays_as_it_is(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=1500")
    first, second = notebook.send("%llm status"), notebook.send("%llm status")
    notebook.follow(second)
    notebook.must("%%generate --background --quiet -t 0 -o job\nHi")
    seen = set()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        with contextlib.suppress(Empty):
            message = notebook.client.get_iopub_msg(timeout=0.5)
            if message["msg_type"] == "update_display_data":
                seen.add(message["parent_header"]["msg_id"])
    notebook.must("job.cancel()")
    assert first != second
    assert seen == {second}


def test_a_card_that_is_followed_no_more_says_when_it_was_right():
    shown = card(WORKER, report(), "12:34")
    assert "12:34" in shown[PLAIN]
    assert "as of 12:34" in shown[HTML]
    assert "gone, seen at 12:34" in gone(WORKER, "12:34")[HTML]


def test_watched_it_changes_in_its_place_a_few_times_a_second(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=1500")
    notebook.must("%%generate --background -t 0 -o job\nHi")
    began = time.monotonic()
    cell = notebook.must("%llm status --watch 1.5")
    assert 1.4 < time.monotonic() - began < 5
    assert len(cell.of("display_data")) == 1
    assert 4 <= len(cell.displays) <= 7
    assert "1 running" in cell.text
    after = notebook.must("job.cancel()\nimport time; time.sleep(1)")
    assert "Batch" not in str(after.displays)  # nothing goes on behind the cell


def test_watching_without_end_is_ended_by_stop(notebook, scripted_worker):
    pressed = []

    def stop(message):
        if message["msg_type"] == "update_display_data" and not pressed:
            pressed.append(True)
            notebook.interrupt()

    cell = notebook.follow(notebook.send("%llm status scripted --watch"), stop)
    assert cell.error["traceback"] == ["KeyboardInterrupt"]
    assert "ready" in cell.text


def test_watching_for_no_time_is_refused(notebook, scripted_worker):
    cell = notebook.run("%llm status --watch 0")
    assert cell.error["ename"] == "InvalidRequest"
    assert "--watch" in cell.error["evalue"]


def test_a_worker_that_dies_ends_the_watching(notebook, start_worker):
    worker = start_worker()
    killed = []

    def kill(message):
        if message["msg_type"] == "update_display_data" and not killed:
            killed.append(time.monotonic())
            os.kill(worker.pid, signal.SIGKILL)

    cell = notebook.follow(notebook.send("%llm status --watch"), kill)
    assert cell.error["ename"] == "WorkerDied"
    assert cell.times[-1] - killed[0] < 4


def test_where_outputs_are_compared_watching_is_one_look(open_notebook, scripted_worker):
    notebook = open_notebook(LLMKERNEL_STREAM="auto")
    began = time.monotonic()
    assert len(notebook.must("%llm status --watch 30").displays) == 1
    assert time.monotonic() - began < 10


def test_one_request_is_one_request():
    from llmkernel.report import details

    rows = dict(details(WORKER, report(requests_finished=1, prompt_tokens=1)))
    assert rows["so far"] == "1 request, 0 failed; 1 token read (0 cached), 0 made"
