"""Text that comes token by token, passed on at most 25 times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

EVERY_SECONDS = 0.04
_SLOWER = ((10.0, 2.5), (1.0, 2.0))
"""After so many seconds the pauses are so many times as long: by then a person reads, and each
update costs the notebook server an envelope of half a kilobyte."""


class Flusher:
    """Collects pieces of text; `emit` gets the first at once, the rest at most every 40 ms.

    A long answer is passed on less often: every 80 ms after a second, every 100 ms after ten.

    `emit` is called in a thread of its own, never twice at a time. Use it in a `with`
    statement: at its end everything has been passed on.
    """

    def __init__(self, emit: Callable[[str], None], every: float = EVERY_SECONDS) -> None:
        self._emit = emit
        self._every = every
        self._pieces: list[str] = []
        self._news = threading.Condition()
        self._over = False
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="llmkernel-panel-flusher")
        self._thread.daemon = True
        self._thread.start()

    def add(self, text: str) -> None:
        """Take a piece, from any thread."""
        with self._news:
            self._pieces.append(text)
            self._news.notify()

    def close(self) -> None:
        """Pass on what is left and end. Again is no error."""
        with self._news:
            self._over = True
            self._news.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while self._pass_on():
            self._rest()

    def _pass_on(self) -> bool:
        """Wait for text and emit it; False once nothing more can come."""
        with self._news:
            self._news.wait_for(lambda: self._pieces or self._over)
            text, over = "".join(self._pieces), self._over
            self._pieces.clear()
        if text:
            self._emit(text)
        return not over

    def _rest(self) -> None:
        now = time.monotonic()
        times = next((times for after, times in _SLOWER if now - self._began >= after), 1.0)
        until = now + self._every * times
        with self._news:
            # the end does not wait; more text does
            self._news.wait_for(lambda: self._over, until - time.monotonic())
