"""The output of one generation while its text arrives: three ways to show the same thing.

Each takes pieces of text with `add` and ends with exactly one `finish`, whatever happened in
between; what `finish` is given is what stays.
"""

from __future__ import annotations

from typing import Any

from llmkernel import environment
from llmkernel.notebook import publisher
from llmkernel.notebook.refreshing import Refreshing
from llmkernel.notebook.rendering import Shown, answers
from llmkernel.notebook.tables import PLAIN, Bundle
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
    """A display that is updated while the text arrives."""

    def __init__(self, shell: Any, form: str, count: int) -> None:
        self._form = form
        self._texts = [""] * count
        self._shown = Refreshing(shell, self._answers)

    def begin(self) -> None:
        """Take the place in the cell that runs now, for text that comes when it has ended."""
        self._shown.show({PLAIN: "…"})

    def add(self, index: int, text: str) -> None:
        """Note it; it is shown when it is time."""
        if text:  # else half a character, held back
            self._texts[index] += text
            self._shown.changed()

    def finish(self, shown: Shown) -> None:
        """Publish after the last update."""
        self._shown.finish(shown.bundle, shown.metadata)

    def abandon(self) -> None:
        """End the updates."""
        self._shown.end()

    def _answers(self) -> Bundle:
        return answers(list(self._texts), self._form)
