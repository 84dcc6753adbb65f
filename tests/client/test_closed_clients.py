"""A client that was closed, and whose worker goes before everything is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)
LEAVES = """
import asyncio, threading
import zmq
from llmkernel import protocol
from llmkernel.client import session
from llmkernel.params import SamplingParams
from tests.client.fake_worker import HangUp, fake_worker

session.HEARTBEAT_MS = 50
go = threading.Event()

def reply(message, say):
    assert go.wait(20)
    for _ in range(50):
        say(protocol.Cancelled(id=0))
    raise HangUp

async def leave(connection):
    welcome = asyncio.Event()
    context = zmq.Context()
    mine = session.Session(
        asyncio.get_running_loop(), context, connection,
        on_welcome=lambda _: welcome.set(), on_message=print, on_broken=print,
    )
    await welcome.wait()
    for number in range(100):
        mine.send(protocol.Submit(id=number, prompt="x" * 300_000, params=SamplingParams()))
    await asyncio.sleep(0.1)
    mine.leave(1.0)
    go.set()
    await asyncio.sleep(1.5)
    context.term()  # does not wait: its sockets are closed

with fake_worker(reply, high_water_mark=1) as fake:
    asyncio.run(leave(fake.connection))
print("lives")
"""


def test_a_worker_that_goes_while_a_client_leaves_does_not_end_its_process():
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", LEAVES],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr[-2000:]
