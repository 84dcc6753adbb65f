"""From a model or a name to a client."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from typing import Any

from llmkernel import connection as files
from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.progress import ProgressBar
from llmkernel.protocol import Progress

OnProgress = Callable[[Progress], None]


def no_choice() -> str | None:
    """Nobody has chosen a worker: it is the only one that runs."""
    return None


chosen: Callable[[], str | None] = no_choice
"""The worker that `connect` means where none is named; the magics of a notebook put theirs here."""


def start(
    model: str | PathLike[str] = DEMO_MODEL,
    *,
    on_progress: OnProgress | None = None,
    progress: bool = True,
    timeout: float | None = None,
    **settings: Any,
) -> Client:
    """A client of a worker with this model, started where none runs.

    `model` is a hub id, a local folder, or left out for the embedded demo model.
    `settings` are those of WorkerConfig: name, revision, quantization, dtype, device,
    context_length, kv_cache, max_concurrent, queue, idle_timeout and so on. A worker of
    that name that runs with the same settings is attached to. Loading shows a bar in a
    terminal or a notebook, unless `progress` is False or `on_progress` takes the messages; `timeout` in seconds, off by
    default, covers all of it.

    Raises InvalidRequest for a setting, ConfigurationConflict if a worker of that name runs
    with other settings, StartFailed and what is below it where the model cannot be loaded.
    """
    config = WorkerConfig.build(model=fspath(model), **settings)
    with ProgressBar(shown=progress and on_progress is None) as bar:
        return Client(launcher.start(config, on_progress=on_progress or bar.show, timeout=timeout))


def connect(name: str | None = None) -> Client:
    """A client of the worker `name`, or of the only one that runs.

    In a notebook with the magics the worker that `%llm start` or `%llm use` chose goes before the
    only one. Raises WorkerNotFound that lists what runs.
    """
    return Client(files.find(name or chosen()))
