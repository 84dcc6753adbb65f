"""The output of one generation while its text arrives: three ways to show the same thing.

Each takes pieces of text with `add` and ends with exactly one `finish`, whatever happened in
between; what `finish` is given is what stays.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

from llmkernel import environment
from llmkernel.notebook import publisher
from llmkernel.notebook.pace import Pace
from llmkernel.notebook.rendering import Shown, answers
from llmkernel.notebook.tables import PLAIN
from llmkernel.notebook.untrusted import printable

_AS_IT_COMES = ("markdown", "text")


class Output:
    """Where the text of a generation goes; this one shows nothing."""

    def begin(self) -> None:
        """The text will come when the cell has ended."""

    def add(self, index: int, text: str) -> None:
        """The answer `index` goes on with `text`."""

    def finish(self, shown: Shown) -> None:
        """Show this instead of everything before; nothing is added after."""

    def abandon(self) -> None:
        """There was nothing to show, and there will not be."""


def make(shell: Any, form: str, count: int) -> Output:
    """The output that fits this shell, for `count` answers in a format."""
    mode = publisher.mode(shell)
    if mode == "live":
        return Live(shell, form, count)
    streamed = environment.stream() is not False
    if mode == "terminal" and streamed and count == 1 and form in _AS_IT_COMES:
        return Terminal()
    return Once(shell)


class Once(Output):
    """One output at the end."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def finish(self, shown: Shown) -> None:
        """Publish."""
        publisher.show(self._shell, shown.bundle, shown.metadata)


class Terminal(Output):
    """Text as it comes, written to standard output."""

    def add(self, index: int, text: str) -> None:  # noqa: ARG002 - there is one answer
        """Write it."""
        publisher.write(printable(text))

    def finish(self, shown: Shown) -> None:
        """Write what stands under the answer."""
        publisher.write(f"\n\n{shown.notes[PLAIN]}\n")


class Live(Output):
    """A display that is updated from a thread of its own, so that it lags behind no token.

    The thread only waits and publishes: the last piece of text is shown in time even while
    the next one is slow to come.
    """

    def __init__(self, shell: Any, form: str, count: int) -> None:
        self._display = publisher.Display(shell)
        self._form = form
        self._texts = [""] * count
        self._changed = threading.Condition()
        self._fresh = False
        self._ended = False
        # the copy holds which cell the output belongs to
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._update,), name="llmkernel-display", daemon=True
        )

    def begin(self) -> None:
        """Take the place in the cell that runs now, for text that comes when it has ended."""
        self._display.publish({PLAIN: "…"})

    def add(self, index: int, text: str) -> None:
        """Note it; the thread shows it when it is time."""
        if not text:
            return  # half a character, held back
        if self._thread.ident is None:
            self._thread.start()
        with self._changed:
            self._texts[index] += text
            self._fresh = True
            self._changed.notify()

    def finish(self, shown: Shown) -> None:
        """Publish after the last update."""
        self.abandon()
        self._display.publish(shown.bundle, shown.metadata)

    def abandon(self) -> None:
        """End the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _update(self) -> None:
        pace = Pace()
        while (texts := self._next(pace)) is not None:
            began = time.monotonic()
            self._display.publish(answers(texts, self._form))
            pace.shown(began, time.monotonic(), sum(map(len, texts)))

    def _next(self, pace: Pace) -> list[str] | None:
        """The texts as soon as there is something new and it is time; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh or self._ended)
            self._changed.wait_for(lambda: self._ended, timeout=pace.wait(time.monotonic()))
            self._fresh = False
            return None if self._ended else list(self._texts)
