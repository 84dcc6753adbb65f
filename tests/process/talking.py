"""What process tests share: a worker in the foreground, and one request over the raw wire."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from llmkernel import connection as files
from llmkernel import protocol
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from llmkernel.params import SamplingParams
from llmkernel.watcher import Watcher
from tests.conftest import processes_in, wait_until

SLOW = "scripted:step_ms=20,eos_after=100000"
"""A model that never stops by itself: 50 tokens a second."""


def submit(watcher: Watcher, max_tokens: int, *, key: int = 1, prompt: str = "hello") -> None:
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    watcher.send(protocol.Submit(id=key, prompt=prompt, params=params, stream=True))


def until(watcher: Watcher, *kinds: type, seconds: float = 20.0) -> protocol.WorkerMessage:
    """The next message of one of these kinds; the others before it are dropped."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = watcher.receive(0.1)
        if isinstance(message, kinds):
            return message
        assert not isinstance(message, protocol.Refused), message
    raise AssertionError(f"no {kinds} within {seconds} s")


def answer(connection: Connection, max_tokens: int = 4) -> protocol.Finished:
    """One request from hello to its end."""
    with Watcher(connection) as watcher:
        submit(watcher, max_tokens)
        finished = until(watcher, *protocol.TERMINAL)
        assert isinstance(finished, protocol.Finished), finished
        return finished


def worker_process(model: str = "scripted", name: str = "one", *options: str) -> subprocess.Popen:
    """A worker in the foreground, whose exit code can be seen. Use it in a `with` statement."""
    command = [sys.executable, "-m", "llmkernel.worker", model, "--name", name, *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )


@contextlib.contextmanager
def foreground(
    model: str = "scripted", *options: str, state: str = "ready"
) -> Iterator[tuple[subprocess.Popen, Connection]]:
    """A worker "one" in the foreground that has reached `state`; killed at the end if it is there."""
    process = worker_process(model, "one", *options)
    try:
        wait_until(lambda: files.running("one"), seconds=20, what="the connection file")
        connection = files.find("one")
        with Watcher(connection) as watcher:
            while not said(until(watcher, protocol.Welcome, protocol.StateChange), state):
                pass
        yield process, connection
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def said(message: protocol.WorkerMessage, state: str) -> bool:
    return isinstance(message, (protocol.Welcome, protocol.StateChange)) and message.state == state


def config(model: str = "scripted", name: str = "one", **settings) -> WorkerConfig:
    return WorkerConfig.build(model=model, name=name, **settings)


def nothing_left(runtime: Path) -> None:
    """No process, and no file but the log."""
    wait_until(lambda: not processes_in(runtime), seconds=5, what="processes to end")
    assert {path.suffix for path in runtime.iterdir()} <= {".log"}
    assert not any(path.is_socket() for path in (runtime.parent / "run").rglob("*"))


def killed(connection: Connection) -> Connection:
    os.kill(connection.pid, signal.SIGKILL)
    wait_until(lambda: not connection.alive, seconds=5, what="death")
    return connection
