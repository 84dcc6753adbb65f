"""One bar for many answers: how many there are, how fast they come and how long it will take."""

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

    def __init__(self, shell: Any, total: int, *, shown: bool) -> None:
        self._shell = shell
        self._shown = shown
        self._mode = publisher.mode(shell)
        self._display = publisher.Display(shell)
        self._pace = Pace()
        self._total = total
        self._done = self._failed = 0
        self._began = time.monotonic()
        self._bar = self._terminal_bar() if shown and self._mode == "terminal" else None

    def step(self, result: Any) -> None:
        """One more is there."""
        self._done += 1
        self._failed += isinstance(result, LLMKernelError)
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if self._shown and self._mode == "live" and not self._pace.wait(now):
            text = line(self._done, self._total, self._failed, now - self._began)
            self._display.publish({PLAIN: text})
            self._pace.shown(now, time.monotonic(), 0)

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

    def _terminal_bar(self) -> Any:
        from tqdm import tqdm

        silent = not sys.stderr.isatty()
        return tqdm(total=self._total, unit=" answers", leave=False, disable=silent)


def line(done: int, total: int, failed: int, seconds: float) -> str:
    """The bar as text."""
    share = done / total if total else 1.0
    bar = ("█" * int(share * _WIDTH)).ljust(_WIDTH, "░")
    facts = [f"{bar} {done} of {total} answered"]
    facts += [f"{failed} failed"] * bool(failed)
    if done and seconds >= _SETTLED_SECONDS:
        rate = done / seconds
        facts += [f"{rate:.1f} a second", f"{duration((total - done) / rate)} left"]
    return " · ".join(facts)
