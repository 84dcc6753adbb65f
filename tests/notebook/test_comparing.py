"""One prompt, several workers: each in its column, as it comes, with its figures or its error."""

from __future__ import annotations

import time

import pytest

from llmkernel import Client
from tests.conftest import wait_until
from tests.notebook.page import OwnPage

pytestmark = pytest.mark.timeout(90)


def running(client):
    load = client.status().load
    return load.running + load.waiting


def test_two_workers_answer_at_the_same_time_side_by_side(notebook, start_worker):
    start_worker("scripted:step_ms=10,eos_after=60", name="one")
    start_worker("scripted:step_ms=10,eos_after=60", name="two")
    cell = notebook.must("%llm compare -m two -m one -t 0 -o out Hello")
    assert len(cell.of("display_data")) == 1
    kinds = [each["data"] for each in cell.displays]
    half = [data["text/plain"] for data in kinds[:-1]]
    assert any(len(part.split("[one]")[1].strip()) > 5 for part in half)  # both while they run
    assert cell.text.index("[two]") < cell.text.index("[one]")
    assert cell.text.count("tokens/s · first after") == 2
    assert "grid-template-columns" in kinds[-1]["text/html"]
    assert OwnPage(kinds[-1]["text/html"]).dangers == []
    assert notebook.must("[(k, len(v.token_ids)) for k, v in out.items()]").value == (
        "[('two', 61), ('one', 61)]"
    )
    facts = cell.displays[-1]["metadata"]["llmkernel"]["compared"]
    assert facts["one"]["usage"]["completion_tokens"] == 61


def test_a_cell_is_the_prompt_and_without_names_all_that_run_are_asked(notebook, start_worker):
    start_worker(name="one")
    start_worker(name="two")
    notebook.must("name = 'Ada'\n%llm config --samples 2 --system brief")
    cell = notebook.must("%%llm compare -n 3 -t 0 -o out\nHello {{ name }},\n\nwho are you?\n")
    assert [line for line in cell.text.splitlines() if line.startswith("[")] == ["[one]", "[two]"]
    turns = [
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "Hello Ada,\n\nwho are you?"},
    ]
    same = f"llm.chat({turns}, max_tokens=3, temperature=0).text == out['one'].text"
    assert (
        notebook.must(f"import llmkernel; llm = llmkernel.connect('one')\n{same}").value == "True"
    )


def test_a_worker_that_fails_has_its_error_in_its_column(notebook, start_worker):
    start_worker(name="good")
    start_worker("scripted:nan_for=Hello", name="bad")
    cell = notebook.must("%llm compare -m nobody -m bad -m good -n 3 -t 0 -o out Hello")
    columns = cell.text.split("[bad]")
    assert "WorkerNotFound" in columns[0]
    assert "NumericalError" in columns[1].split("[good]")[0]
    assert "3 tokens" in columns[1].split("[good]")[1]
    assert notebook.must("[type(each).__name__ for each in out.values()]").value == (
        "['WorkerNotFound', 'NumericalError', 'Generation']"
    )


def test_where_all_fail_the_cell_does(notebook, start_worker):
    start_worker("scripted:nan_for=Hello", name="bad")
    cell = notebook.run("%llm compare -m bad -m nobody -n 3 Hello")
    assert cell.error["ename"] == "NumericalError"
    assert "WorkerNotFound" in cell.text


def test_stop_ends_all_and_keeps_what_has_come(notebook, start_worker):
    slow = "scripted:step_ms=10,eos_after=1500"
    workers = [start_worker(slow, name=name) for name in ("one", "two")]
    pressed = []

    def stop(message):
        if message["msg_type"] == "update_display_data" and not pressed:
            pressed.append(time.monotonic())
            notebook.interrupt()

    cell = notebook.follow(notebook.send("%llm compare -t 0 -o out Hello"), stop)
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert cell.error["traceback"] == ["KeyboardInterrupt"]
    assert cell.times[-1] - pressed[0] < 5
    assert cell.text.count("interrupted") == 2
    assert notebook.must("[each.finish_reason for each in out.values()]").value == (
        "['cancelled', 'cancelled']"
    )
    for worker in workers:
        with Client(worker) as client:
            wait_until(lambda client=client: running(client) == 0, seconds=5, what="it to end")


def test_where_outputs_are_compared_it_is_published_once_without_times(open_notebook, start_worker):
    start_worker(name="one")
    notebook = open_notebook(LLMKERNEL_STREAM="auto")
    cell = notebook.must("%llm compare -m one -n 3 -t 0 Hello")
    assert [each["msg_type"] for each in cell.messages if "display" in each["msg_type"]] == [
        "display_data"
    ]
    assert "tokens/s" not in cell.text
    assert "3 tokens" in cell.text


def test_what_cannot_be_is_refused(notebook):
    for code, named in (
        ("%llm compare Hello", "No worker runs"),
        ("%llm compare -m a", "empty"),
        ("%%llm compare -m a Hello\nHello", "lines below"),
        ("%%llm start\nHello", "compare alone"),
        ("%llm compare --samples 2 Hello", "--samples"),
    ):
        cell = notebook.run(code)
        assert named in cell.error["evalue"], code
