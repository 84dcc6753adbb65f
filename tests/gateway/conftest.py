"""Gateways in this process, over real sockets, in front of real workers with the scripted model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmkernel import launcher
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from tests.conftest import kill_all_in, stop_worker
from tests.gateway.serving import Gate, gate

ENDLESS = "scripted:step_ms=5,eos_after=100000,context_length=20000,blocks=20000"
"""200 tokens a second, and no end by itself."""


@pytest.fixture(scope="module")
def shared_dir() -> Iterator[Path]:
    """A runtime folder for all tests of a module; nothing may be left running in it."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder, pytest.MonkeyPatch.context() as patch:
        for variable, name in (("JUPYTER_RUNTIME_DIR", "runtime"), ("XDG_RUNTIME_DIR", "run")):
            (Path(folder) / name).mkdir(mode=0o700)
            patch.setenv(variable, str(Path(folder) / name))
        runtime = Path(folder) / "runtime"
        try:
            yield runtime
        finally:
            left = kill_all_in(runtime)
        assert left == [], "the tests left these processes behind"


@pytest.fixture(scope="module")
def worker(shared_dir: Path) -> Iterator[Callable[..., Connection]]:
    """Starts workers that live until the last test of the module."""
    started: list[Connection] = []

    def start(name: str, model: str = "scripted", **settings: object) -> Connection:
        config = WorkerConfig.build(model=model, name=name, **settings)
        started.append(launcher.start(config, timeout=60))
        return started[-1]

    yield start
    for connection in started:
        stop_worker(connection)


@pytest.fixture(scope="module")
def open_gate(shared_dir: Path) -> Iterator[Callable[..., Gate]]:
    """Starts gateways that live until the last test of the module."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(gate(**settings))


@pytest.fixture(scope="module")
def scripted(worker: Callable[..., Connection], open_gate: Callable[..., Gate]) -> Gate:
    """A gateway in front of a fast scripted worker."""
    worker("scripted")
    return open_gate()
