"""The progress of loading a model, as bars in a terminal or a notebook and as nothing elsewhere."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llmkernel.protocol import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

TITLES = {
    "resolve": "finding the model",
    "download": "downloading",
    "read": "reading",
    "quantise": "quantising",
    "keep": "keeping for the next start",
    "warm_up": "warming up",
    "answer": "waiting for its answer",
}
_WORDS = "{desc}{postfix} …"
"""What tqdm shows of a stage where nothing is counted; it would say "0 steps [00:00, ? steps/s]"."""


class ProgressBar:
    """One bar for each stage; it goes away when the stage is over."""

    def __init__(self, *, shown: bool = True) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._notebook = _in_notebook()
        self._shown = shown and (self._notebook or sys.stderr.isatty())

    def show(self, progress: Progress) -> None:
        """Take in one message of a worker or of a download."""
        if not self._shown:
            return
        if progress.stage != self._stage:
            self._begin(progress)
        assert self._bar is not None, "a stage has a bar"
        self._bar.total = progress.total or None
        self._bar.bar_format = None if progress.total or progress.done else _WORDS
        if progress.detail:
            self._bar.set_postfix_str(progress.detail, refresh=False)
        self._bar.n = progress.done
        self._bar.refresh()

    def _begin(self, progress: Progress) -> None:
        self._end()
        size = progress.unit == "bytes"
        self._bar = self._maker()(
            desc=TITLES.get(progress.stage, progress.stage),
            total=progress.total or None,
            unit="B" if size else f" {progress.unit or 'steps'}",
            unit_scale=size,
            leave=False,
            bar_format=_WORDS,
        )
        self._stage = progress.stage

    def _maker(self) -> Callable[..., tqdm[Any]]:
        if self._notebook:
            from tqdm.auto import tqdm as anywhere

            return anywhere
        from tqdm import tqdm

        # tqdm itself writes nothing where a terminal does not know its size
        columns, lines = shutil.get_terminal_size()
        return functools.partial(tqdm, file=sys.stderr, ncols=min(100, columns), nrows=lines)

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


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel. IPython is not imported for the question."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")
