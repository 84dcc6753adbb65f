"""Clients of real worker processes with the scripted model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import WorkerConfig
from tests.conftest import stop_worker

ENDLESS = "scripted:step_ms=5,eos_after=100000,context_length=20000,blocks=20000"
"""200 tokens a second, and no end by itself."""


@pytest.fixture(scope="module")
def shared_dir() -> Iterator[Path]:
    """A runtime folder for all tests of a module that use a shared worker."""
    with tempfile.TemporaryDirectory(prefix="lk-") as folder, pytest.MonkeyPatch.context() as patch:
        for variable, name in (("JUPYTER_RUNTIME_DIR", "runtime"), ("XDG_RUNTIME_DIR", "run")):
            (Path(folder) / name).mkdir(mode=0o700)
            patch.setenv(variable, str(Path(folder) / name))
        yield Path(folder) / "runtime"


def shared(name: str, model: str) -> Iterator[Client]:
    """A client of a worker that several tests use; it is stopped after the last."""
    connection = launcher.start(WorkerConfig.build(model=model, name=name), timeout=60)
    try:
        with Client(connection) as client:
            yield client
    finally:
        stop_worker(connection)


@pytest.fixture(scope="module")
def llm(shared_dir: Path) -> Iterator[Client]:
    """A client of a fast scripted worker."""
    yield from shared("scripted", "scripted")


@pytest.fixture(scope="module")
def endless(shared_dir: Path) -> Iterator[Client]:
    """A client of a worker that writes 200 tokens a second and never ends by itself."""
    yield from shared("endless", ENDLESS)
