"""One bar for many answers: how many there are, how fast they come and how long it will take.

It is shown before the first answer, which may be long in coming. `map` of a client has it too
where the magics are loaded: it stays readable in a saved notebook.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from llmkernel.errors import LLMKernelError
from llmkernel.notebook import publisher
from llmkernel.notebook.pace import Pace
from llmkernel.notebook.tables import PLAIN, Bundle
from llmkernel.units import duration

_WIDTH = 24
_SETTLED_SECONDS = 0.5
"""Before, a rate would be made of a few answers that happened to be first."""


class Counter:
    """The bar of a loop, and in its place in the end what was found."""

    def __init__(self, shell: Any, total: int | None, *, shown: bool) -> None:
        self._shell = shell
        self._shown = shown
        self._mode = publisher.mode(shell)
        self._display = publisher.Display(shell)
        self._pace = Pace()
        self._total = total
        self._done = self._failed = self._known = 0
        self._began = time.monotonic()
        self._bar = self._terminal_bar() if shown and self._mode == "terminal" else None
        self._show()

    def step(self, result: Any) -> None:
        """One more is there."""
        self._done += 1
        self._failed += isinstance(result, LLMKernelError)
        if self._bar is not None:
            self._bar.update()
        self._show()

    def known(self) -> None:
        """One more was there from the beginning: it says nothing of the rate."""
        self._done += 1
        self._known += 1
        self._show()

    def finish(self, bundle: Bundle) -> None:
        """Show this instead of the bar."""
        self.close()
        if not self._shown:
            return
        if self._mode == "live":
            self._display.publish(bundle)
        else:
            publisher.show(self._shell, bundle)

    def close(self) -> None:
        """Take a terminal's bar away."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._shown and self._mode == "live" and (last or not self._pace.wait(now)):
            counts = (self._done, self._total, self._failed, now - self._began)
            self._display.publish({PLAIN: line(*counts, known=self._known)})
            self._pace.shown(now, time.monotonic(), 0)

    def _terminal_bar(self) -> Any:
        from tqdm import tqdm

        silent = not sys.stderr.isatty()
        return tqdm(total=self._total, unit=" answers", leave=False, disable=silent)


class MapBar(Counter):
    """The bar of a `map`; it stays, with what it said last."""

    def __init__(self, shell: Any, total: int | None) -> None:
        super().__init__(shell, total, shown=True)

    def close(self) -> None:
        """It counts no more."""
        super().close()
        self._show(last=True)


def line(done: int, total: int | None, failed: int, seconds: float, known: int = 0) -> str:
    """The bar as text. The rate is that of the answers that were not known before."""
    facts = [f"{done} answered" if total is None else _bar(done, total)]
    facts += [f"{failed} failed"] * bool(failed)
    facts += [f"{known} known before"] * bool(known)
    if done > known and seconds >= _SETTLED_SECONDS:
        rate = (done - known) / seconds
        facts.append(f"{rate:.1f} a second")
        if total is not None and done < total:
            facts.append(f"{duration((total - done) / rate)} left")
    return " · ".join(facts)


def _bar(done: int, total: int) -> str:
    share = done / total if total else 1.0
    bar = ("█" * int(share * _WIDTH)).ljust(_WIDTH, "░")
    return f"{bar} {done} of {total} answered"
