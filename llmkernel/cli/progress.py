"""The progress of loading a model, as bars on a terminal and as nothing anywhere else."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llmkernel.protocol import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

_TITLES = {
    "resolve": "finding the model",
    "download": "downloading",
    "read": "reading",
    "quantise": "quantising",
    "warm_up": "warming up",
}


class ProgressBar:
    """One bar for each stage, on standard error; it goes away when the stage is over."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._shown = sys.stderr.isatty()

    def show(self, progress: Progress) -> None:
        """Take in one message of a worker or of a download."""
        if not self._shown:
            return
        if progress.stage != self._stage:
            self._begin(progress)
        assert self._bar is not None, "a stage has a bar"
        self._bar.total = progress.total or None
        if progress.detail:
            self._bar.set_postfix_str(progress.detail, refresh=False)
        self._bar.n = progress.done
        self._bar.refresh()

    def _begin(self, progress: Progress) -> None:
        from tqdm import tqdm

        self._end()
        size = progress.unit == "bytes"
        unit = "B" if size else f" {progress.unit or 'steps'}"
        title = _TITLES.get(progress.stage, progress.stage)
        self._bar = tqdm(
            desc=title,
            total=progress.total or None,
            unit=unit,
            unit_scale=size,
            leave=False,
            file=sys.stderr,
            # tqdm itself writes nothing where a terminal does not know its size
            ncols=min(100, shutil.get_terminal_size().columns),
            nrows=shutil.get_terminal_size().lines,
        )
        self._stage = progress.stage

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
