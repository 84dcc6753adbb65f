"""How an error of this project looks in a notebook: what happened and what to do next.

The sixty lines of frames between a cell and a socket help nobody; the lines of the user's
own code do, so those stay. `import traceback; traceback.print_last()` shows everything.
"""

from __future__ import annotations

import functools
import linecache
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from llmkernel.errors import TABLE, InvalidRequest, LLMKernelError

P = ParamSpec("P")
T = TypeVar("T")
_MAGIC_CALLS = ("run_cell_magic", "run_line_magic")
_HOOK = "_render_traceback_"


def install() -> None:
    """Have IPython show errors of this project short."""
    setattr(LLMKernelError, _HOOK, _render)


def uninstall() -> None:
    """Give IPython its own way back."""
    if hasattr(LLMKernelError, _HOOK):
        delattr(LLMKernelError, _HOOK)


def shorten(error: BaseException) -> None:
    """Have IPython show this one error by its name alone, as the interrupt that it is."""
    setattr(error, _HOOK, lambda: [type(error).__name__])


def interruptible(magic: Callable[P, T]) -> Callable[P, T]:
    """A magic whose interrupt is one word, wherever in it the stop button is noticed.

    Whatever it had begun and still held alone is let go: a request is cancelled.
    """

    @functools.wraps(magic)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return magic(*args, **kwargs)
        except KeyboardInterrupt as stop:
            shorten(stop)
            # IPython keeps the traceback; a stream in one of its frames would run on unread
            traceback.clear_frames(stop.__traceback__)
            raise

    return call


def hint(error: LLMKernelError) -> str:
    """What to do next; "" where the table knows nothing, or the message says it all."""
    outcome = TABLE.get(error.code)
    return outcome.hint if outcome and type(error) is not InvalidRequest else ""


def _render(error: LLMKernelError) -> list[str]:
    lines = [f"{type(error).__name__}: {error.message}"]
    if hint(error):
        lines.append(hint(error))
    where = _own_lines(error.__traceback__)
    return [*lines, "", *where] if where else lines


def _own_lines(trace: TracebackType | None) -> list[str]:
    """The frames of the user's code, one entry each; none for a call by a magic."""
    lines = []
    for frame, number in traceback.walk_tb(trace):
        name = frame.f_code.co_filename
        source = linecache.getline(name, number).strip()
        if not _is_installed(name) and source and not any(call in source for call in _MAGIC_CALLS):
            lines.append(f"{_place(name)}, line {number}: {source}")
    return lines


def _is_installed(filename: str) -> bool:
    """Whether a frame is this package's, the standard library's or another installed one's."""
    path = Path(filename)
    ours = Path(__file__).parent.parent
    library = Path(traceback.__file__).parent
    return ours in path.parents or library in path.parents or "site-packages" in path.parts


def _place(filename: str) -> str:
    """ "Cell In[3]" for a cell, else the path."""
    compiler = getattr(_shell(), "compile", None)
    named = compiler.format_code_name(filename) if compiler else None
    return f"{named[0]} {named[1]}" if named else filename


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None
