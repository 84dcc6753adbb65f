"""Clients whose process is killed or frozen: what they had is cancelled, others notice nothing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import pytest

from llmkernel import protocol
from tests.conftest import wait_until
from tests.wire.raw import RawClient
from tests.wire.serving import serving

pytestmark = pytest.mark.timeout(60)

MODEL = "scripted:step_ms=5,eos_after=100000,context_length=20000,blocks=20000"
CLIENT = """
import sys
import llmkernel
llm = llmkernel.connect()
if sys.argv[1] == "stream":
    for delta in llm.stream("hello", max_tokens=15000):
        print("token", flush=True)
else:
    print("token", flush=True)
    llm.generate("hello", max_tokens=15000)
"""


@pytest.fixture
def served(runtime_dir):
    with serving(MODEL) as inside:
        yield inside


@contextlib.contextmanager
def child(mode):
    """A process with a request in flight."""
    with subprocess.Popen([sys.executable, "-c", CLIENT, mode], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().strip() == b"token"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["stream", "generate"])
@pytest.mark.parametrize(("number", "limit"), [(signal.SIGKILL, 1.0), (signal.SIGSTOP, 3.0)])
def test_the_request_of_a_client_that_is_gone_is_cancelled_in_time(served, mode, number, limit):
    def running():
        return served.engine.load().running

    with RawClient(served.connection) as other, child(mode) as process:
        other.submit(max_tokens=15_000, credit=1024, stream=False)
        wait_until(lambda: running() == 2, seconds=5, what="both requests to run")
        process.send_signal(number)
        wait_until(lambda: running() == 1, seconds=limit, what="the end of what it had")
        other.send(protocol.Cancel(id=1))
        cancelled = other.terminal()
    text = cancelled.outputs[0].text
    with RawClient(served.connection) as alone:
        alone.submit(max_tokens=len(text), stream=False)
        assert alone.terminal().outputs[0].text == text


def test_clients_that_have_left_are_not_counted(served):
    def clients():
        return served.on_loop(lambda: len(served.front._peers))

    with RawClient(served.connection):
        for _ in range(5):
            with RawClient(served.connection):
                pass
        wait_until(lambda: clients() == 1, seconds=1, what="those that left to be forgotten")
