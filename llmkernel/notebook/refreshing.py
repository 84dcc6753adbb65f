"""A display that is shown again when there is something new, from a thread of its own."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

from llmkernel.notebook import publisher
from llmkernel.notebook.pace import Pace
from llmkernel.notebook.tables import Bundle


class Refreshing:
    """One output of a cell that follows something which changes, and lags behind nothing.

    The thread only waits, makes what there is to see, and publishes: the last change is shown
    in time even while the next one is slow to come. `make` is called there.
    """

    def __init__(self, shell: Any, make: Callable[[], Bundle]) -> None:
        self._display = publisher.Display(shell)
        self._make = make
        self._news = threading.Condition()
        self._fresh = False
        self._ended = False
        # the copy holds which cell the output belongs to
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._update,), name="llmkernel-display", daemon=True
        )

    def show(self, bundle: Bundle) -> None:
        """Show something before the first change."""
        self._display.publish(bundle)

    def changed(self) -> None:
        """There is something new, shown when it is time. Any thread."""
        with self._news:
            if self._ended:
                return
            if self._thread.ident is None:
                self._thread.start()
            self._fresh = True
            self._news.notify()

    def finish(self, bundle: Bundle, metadata: dict[str, Any]) -> None:
        """Publish this after the last update."""
        self.end()
        self._display.publish(bundle, metadata)

    def end(self) -> None:
        """End the thread."""
        with self._news:
            self._ended = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _update(self) -> None:
        pace = Pace()
        while self._wait(pace):
            bundle = self._make()
            began = time.monotonic()
            self._display.publish(bundle)
            pace.shown(began, time.monotonic(), max(map(len, bundle.values())))

    def _wait(self, pace: Pace) -> bool:
        """Until there is something new and it is time; False at the end."""
        with self._news:
            self._news.wait_for(lambda: self._fresh or self._ended)
            self._news.wait_for(lambda: self._ended, timeout=pace.wait(time.monotonic()))
            self._fresh = False
            return not self._ended
