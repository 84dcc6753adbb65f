"""The stop button at bad moments, kernels that are restarted, notebooks that share a batch."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from llmkernel import Client
from llmkernel.connection import list_workers
from llmkernel.notebook import failures
from llmkernel.notebook.generating import Asked
from llmkernel.notebook.request import read
from tests.conftest import processes_in, wait_until

pytestmark = pytest.mark.timeout(90)

SLOW = "scripted:step_ms=10,eos_after=1500"


def running(client) -> int:
    load = client.status().load
    return load.running + load.waiting


@pytest.fixture
def slow(start_worker):
    """A client of a worker whose answers take fifteen seconds."""
    with Client(start_worker(SLOW, name="slow")) as client:
        yield client


def stop_when(notebook, kind):
    """Press stop once, at the first message of a kind."""
    pressed = []

    def look(message):
        if message["msg_type"] == kind and not pressed:
            pressed.append(time.monotonic())
            notebook.interrupt()

    look.pressed = pressed
    return look


def test_stop_in_the_middle_keeps_the_text_and_frees_the_worker(notebook, slow):
    look = stop_when(notebook, "update_display_data")
    cell = notebook.follow(notebook.send("%%generate -t 0 -o out\nHi"), look)
    assert cell.times[-1] - look.pressed[0] < 5
    assert cell.reply["status"] == "error"
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert cell.error["traceback"] == ["KeyboardInterrupt"]
    assert "interrupted" in cell.text
    assert running(slow) == 0
    kept = notebook.must("print(out.text, out.finish_reason)").printed
    assert cell.text.split("\n\n")[0].strip() == kept.rpartition(" ")[0].strip()
    assert kept.endswith("cancelled\n")
    assert notebook.must("%generate -t 0 -n 5 Hi").text


def test_stop_before_the_first_token_leaves_nothing_behind(notebook, start_worker):
    worker = start_worker("scripted:prefill_us_per_token=10000,step_ms=1")
    sent = notebook.send("%%generate -t 0\n" + "a long prompt " * 20)
    with Client(worker) as client:
        wait_until(lambda: running(client), seconds=10, what="the request to begin")
        notebook.interrupt()
        cell = notebook.follow(sent)
        assert cell.error["ename"] == "KeyboardInterrupt"
        assert cell.displays == []
        wait_until(lambda: running(client) == 0, seconds=20, what="the request to end")
    assert notebook.must("1 + 1").value == "2"


def test_stop_between_two_tokens_cancels_too(slow, monkeypatch):
    """The interrupt may come while text is shown and not while it is waited for."""
    monkeypatch.setenv("LLMKERNEL_STREAM", "1")
    publisher = SimpleNamespace(publish=lambda *_, **__: None)
    shell = SimpleNamespace(kernel=True, user_ns={}, display_pub=publisher)
    asked = Asked(shell, slow, read("%%generate", "-t 0", "Hi", {}, {}))
    added = []

    def add(index, text):
        added.append(text)
        if len(added) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(asked.output, "add", add)
    with pytest.raises(KeyboardInterrupt):
        asked.read()
    wait_until(lambda: running(slow) == 0, seconds=5, what="the request to end")
    assert asked.stream.generation.text.startswith("".join(added))


def test_stop_while_a_request_is_sent_cancels_it(slow, monkeypatch):
    """It runs already, and nobody but the traceback, which IPython keeps, knows of it."""
    shell = SimpleNamespace(user_ns={})

    def stop(*_):
        wait_until(lambda: running(slow) == 1, seconds=5, what="the request to begin")
        raise KeyboardInterrupt

    monkeypatch.setattr("llmkernel.notebook.generating._output", stop)
    ask = failures.interruptible(lambda: Asked(shell, slow, read("%%generate", "", "Hi", {}, {})))
    with pytest.raises(KeyboardInterrupt) as kept:
        ask()
    wait_until(lambda: running(slow) == 0, seconds=5, what="the request to end")
    assert kept.value._render_traceback_() == ["KeyboardInterrupt"]


@pytest.mark.parametrize(
    "cell",
    [
        "%%generate -t 0\nHi",
        "%%chat\nHi",
        "%%generate --for x in range(3)\nHi",
        "%llm status",
        "%%llm compare\nHi",
        "%%generate --for x in forever()\nHi",
    ],
)
def test_stop_before_a_frozen_worker_is_asked_is_one_word_too(notebook, slow, cell):
    notebook.must(
        "import time\ndef forever():\n    while True:\n        time.sleep(0.01)\n        yield 1"
    )
    os.kill(slow.connection.pid, signal.SIGSTOP)
    try:
        sent = notebook.send(cell)
        time.sleep(0.5)
        notebook.interrupt()
        ended = notebook.follow(sent)
    finally:
        os.kill(slow.connection.pid, signal.SIGCONT)
    assert ended.error["ename"] == "KeyboardInterrupt"
    assert ended.error["traceback"] == ["KeyboardInterrupt"]


def test_stop_does_not_let_the_next_queued_cell_run(notebook, slow):
    first = notebook.send("%%generate -t 0\nHi")
    second = notebook.send("ran = True")
    cell = notebook.follow(first, stop_when(notebook, "update_display_data"))
    assert cell.error["ename"] == "KeyboardInterrupt"
    reply = notebook.client.get_shell_msg(timeout=30)
    while reply["parent_header"]["msg_id"] != second:
        reply = notebook.client.get_shell_msg(timeout=30)
    assert reply["content"]["status"] in ("aborted", "error")
    assert notebook.run("ran").error["ename"] == "NameError"


def test_stop_while_a_list_is_answered_keeps_what_has_come(notebook, slow):
    sent = notebook.send(
        "%%generate --for n in [3, 1500] --ignore-eos -t 0 -n {{ 1500 }} -o got\nHi {{ n }}"
    )
    wait_until(lambda: running(slow) == 2, seconds=10, what="both to run")
    notebook.interrupt()
    cell = notebook.follow(sent)
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert "0 of 2 answered" in cell.text
    wait_until(lambda: running(slow) == 0, seconds=5, what="both to end")
    assert notebook.must("len(got) <= 2").value == "True"


def test_stop_while_a_model_loads_ends_the_start(notebook, runtime_dir):
    sent = notebook.send("%llm start scripted:load_ms=20000 --name big")
    look = stop_when(notebook, "display_data")
    cell = notebook.follow(sent, look)
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert cell.times[-1] - look.pressed[0] < 5
    wait_until(lambda: list_workers() == [], seconds=5, what="the worker to leave")
    assert "is ready" in notebook.must("%llm start scripted --name big").text
    notebook.must("%llm stop")


def test_stop_does_not_touch_what_runs_in_the_background(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=100")
    notebook.must("%%generate --background -t 0 -o job\nHi")
    cell = notebook.follow(
        notebook.send("import time; print('on'); time.sleep(20)"), stop_when(notebook, "stream")
    )
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert notebook.must("job.result(timeout=20).finish_reason").value == "'stop'"


def test_a_restarted_kernel_finds_the_model_still_there(open_notebook, slow):
    notebook = open_notebook()
    pid = slow.status().pid
    for _ in range(5):
        notebook.send("%%generate -t 0\nHi")
        wait_until(lambda: running(slow) == 1, seconds=10, what="the stream to begin")
        notebook.restart()
        wait_until(lambda: running(slow) == 0, seconds=20, what="the stream to be cancelled")
        notebook.must("%load_ext llmkernel")
        assert notebook.must("%generate -t 0 -n 3 Hi").text
    # ours, and the one of the last kernel; a killed kernel's connection is noticed in a moment
    wait_until(lambda: slow.status().clients <= 2, seconds=20, what="the dead clients to go")
    status = slow.status()
    assert status.pid == pid
    assert status.load.running == status.load.waiting == 0
    assert status.load.free_blocks + status.load.cached_blocks >= status.model.kv_blocks - 1


def test_two_notebooks_are_answered_in_one_batch(open_notebook, slow):
    notebooks = [open_notebook(), open_notebook()]
    before = slow.status().load
    sent = [each.send("%%generate -t 0 -n 300\nHi") for each in notebooks]
    wait_until(lambda: slow.status().load.running == 2, seconds=10, what="both to run")
    cells = [each.follow(one) for each, one in zip(notebooks, sent, strict=True)]
    after = slow.status().load
    assert [cell.error for cell in cells] == [None, None]
    assert cells[0].text.split("\n\n")[0] == cells[1].text.split("\n\n")[0]
    assert after.steps - before.steps < 600


def test_a_notebook_has_one_connection(notebook, slow):
    before = slow.status().clients
    for _ in range(5):
        notebook.must("%generate -n 1 Hi")
    assert slow.status().clients - before <= 1


def test_nothing_of_a_closed_notebook_stays(open_notebook, slow, runtime_dir):
    gone = open_notebook()
    gone.send("%%generate -t 0\nHi")
    wait_until(lambda: running(slow) == 1, seconds=10, what="the stream to begin")
    gone.close()
    wait_until(lambda: running(slow) == 0, seconds=10, what="the stream to be cancelled")
    assert {process.pid for process in processes_in(runtime_dir)} == {slow.connection.pid}
