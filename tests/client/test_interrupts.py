"""Ctrl-C in a real process: the partial answer stays, the worker is told, the next call works."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time

import pytest

from llmkernel.client import calls
from tests.conftest import wait_until

pytestmark = pytest.mark.timeout(60)


@contextlib.contextmanager
def interrupted(mode):
    """A process in the middle of a call."""
    command = [sys.executable, "-m", "tests.client.interrupted", mode]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        try:
            assert child.stdout.readline().strip() == b"begun"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("mode", ["generate", "stream", "body", "map", "task"])
def test_an_interrupt_acts_at_once_keeps_the_text_and_frees_the_worker(endless, mode):
    neighbour = endless.stream("somebody else", max_tokens=15_000, temperature=0)
    next(neighbour)
    with interrupted(mode) as child:
        others = {"map": 3}.get(mode, 1)
        wait_until(
            lambda: endless.status().load.running == 1 + others, seconds=5, what="its requests"
        )
        time.sleep(0.3)  # some text
        sent = time.time()
        child.send_signal(signal.SIGINT)
        wait_until(
            lambda: endless.status().load.running == 1, seconds=1, what="its requests to end"
        )
        rest = child.stdout.read().splitlines()
        assert child.wait(10) == 0
    report = json.loads(rest[-1])
    whole = endless.generate("hello", max_tokens=200, temperature=0).text
    assert report["raised"] - sent < 0.6
    assert report["again"] == whole[:5]
    if mode in ("generate", "stream"):
        assert len(report["partial"]) > 20
        assert whole.startswith(report["partial"][:100])
    if mode == "map":
        assert report["partial"].count("finish_reason='cancelled'") == 3, "each row's piece stays"
    next(neighbour)
    neighbour.close()


@pytest.mark.parametrize("moment", [1, 5])
def test_an_interrupt_between_inbox_and_reader_loses_nothing(endless, monkeypatch, moment):
    get, taken = calls.SyncInbox.get, []

    async def interrupted_once(inbox, timeout=None):
        arrival = await get(inbox, timeout)
        taken.append(arrival)
        if len(taken) == moment:
            raise KeyboardInterrupt
        return arrival

    whole = endless.generate("hello", max_tokens=60, temperature=0).text
    monkeypatch.setattr(calls.SyncInbox, "get", interrupted_once)
    with pytest.raises(KeyboardInterrupt) as stopped:
        for _ in endless.stream("hello", max_tokens=15_000, temperature=0):
            pass
    partial = stopped.value.partial.text
    assert len(partial) >= moment
    assert whole.startswith(partial[:50])


def test_two_interrupts_do_not_wait_for_the_worker(endless):
    with interrupted("generate") as child:
        time.sleep(0.2)
        began = time.monotonic()
        for _ in range(2):
            child.send_signal(signal.SIGINT)
            time.sleep(0.02)
        child.wait(5)
        assert time.monotonic() - began < 2.0
    wait_until(lambda: endless.status().load.running == 0, seconds=2, what="its request to end")
