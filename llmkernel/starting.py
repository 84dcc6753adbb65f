"""From a model or a name to a client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from os import PathLike, fspath
from typing import Any

from llmkernel import connection as files
from llmkernel import launcher
from llmkernel.client import Client
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.protocol import Progress

OnProgress = Callable[[Progress], None]


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
    that name that runs with the same settings is attached to. Loading shows a bar, unless
    `progress` is False or `on_progress` takes the messages; `timeout` in seconds, off by
    default, covers all of it.

    Raises InvalidRequest for a setting, ConfigurationConflict if a worker of that name runs
    with other settings, StartFailed and what is below it where the model cannot be loaded.
    """
    config = WorkerConfig.build(model=fspath(model), **settings)
    with _bar(on_progress, shown=progress) as show:
        return Client(launcher.start(config, on_progress=show, timeout=timeout))


def connect(name: str | None = None) -> Client:
    """A client of the worker `name`, or of the only one that runs.

    Raises WorkerNotFound that lists what runs.
    """
    return Client(files.find(name))


@contextlib.contextmanager
def _bar(on_progress: OnProgress | None, *, shown: bool) -> Iterator[OnProgress | None]:
    """Where the messages about loading go: to the caller, else into a bar for each stage."""
    if on_progress is not None or not shown:
        yield on_progress
        return
    bars = _Bars()
    try:
        yield bars.show
    finally:
        bars.close()


class _Bars:
    """One tqdm bar at a time, for the stage that loading is in."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None

    def show(self, progress: Progress) -> None:
        """Take in one message."""
        if progress.stage != self._stage:
            self._next(progress)
        self._bar.total = progress.total or None
        self._bar.n = progress.done
        self._bar.refresh()

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _next(self, progress: Progress) -> None:
        from tqdm.auto import tqdm

        self.close()
        self._stage = progress.stage
        of_bytes = progress.unit == "bytes"
        self._bar = tqdm(
            desc=progress.stage.replace("_", " "),
            total=progress.total or None,
            unit="B" if of_bytes else progress.unit or "step",
            unit_scale=of_bytes,
            leave=False,
        )
