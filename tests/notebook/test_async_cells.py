"""Cells that await: the stop button acts at once, and the kernel's loop goes on meanwhile."""

from __future__ import annotations

import time

import pytest

from llmkernel import Client
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(90)

SLOW = "scripted:step_ms=10,eos_after=1500"
PROMPT_SECONDS = 1.0
"""Between the press and the cell's end; the answer itself takes fifteen."""


def running(client):
    load = client.status().load
    return load.running + load.waiting


@pytest.fixture
def slow(start_worker):
    with Client(start_worker(SLOW, name="slow")) as client:
        yield client


def stop_at_first_print(notebook, code, pause=0.3):
    """Run a cell and press stop a moment after it printed; gives the cell and how long it took."""
    pressed = []

    def press(message):
        if message["msg_type"] == "stream" and not pressed:
            time.sleep(pause)
            pressed.append(time.monotonic())
            notebook.interrupt()

    cell = notebook.follow(notebook.send(code), press)
    return cell, cell.times[-1] - pressed[0]


@pytest.mark.parametrize(
    "code",
    [
        "print('on', flush=True)\nawait llm.aio.chat('Hi', temperature=0)",
        "print('on', flush=True)\nawait llm.aio.map(['a', 'b'], temperature=0, progress=False)",
        (
            "print('on', flush=True)\n"
            "async for delta in llm.aio.stream_chat('Hi', temperature=0):\n    pass"
        ),
        (
            "import asyncio\nprint('on', flush=True)\n"
            "await asyncio.gather(*(llm.aio.chat(x, temperature=0) for x in 'abc'))"
        ),
    ],
    ids=["chat", "map", "stream", "gather"],
)
def test_stop_ends_what_is_awaited_and_its_request(notebook, slow, code):
    notebook.must("import llmkernel; llm = llmkernel.connect()")
    cell, seconds = stop_at_first_print(notebook, code)
    assert cell.reply["status"] == "error"
    assert cell.error["ename"] in ("CancelledError", "KeyboardInterrupt")
    assert seconds < PROMPT_SECONDS
    wait_until(lambda: running(slow) == 0, seconds=5, what="the requests to end")
    assert notebook.must("1 + 1").value == "2"


def test_the_loop_of_the_kernel_goes_on_while_an_answer_is_awaited(notebook, slow):
    notebook.must("import asyncio, time, llmkernel; llm = llmkernel.connect()")
    cell = notebook.must(
        "gaps = []\n"
        "async def look():\n"
        "    last = time.monotonic()\n"
        "    while True:\n"
        "        await asyncio.sleep(0.01)\n"
        "        now = time.monotonic(); gaps.append(now - last); last = now\n"
        "task = asyncio.create_task(look())\n"
        "answer = await llm.aio.chat('Hi', temperature=0, max_tokens=100)\n"
        "task.cancel()\n"
        "len(gaps) > 20, sorted(gaps)[len(gaps) // 2] < 0.1"
    )
    assert cell.value == "(True, True)"
