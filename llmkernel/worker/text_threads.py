"""Threads for text: tokenising and templates, which clients take turns at.

A prompt of a million characters takes a tokenizer seconds. One client may have many of
them; whoever comes with a short question meanwhile finds a thread that is not that client's.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

COUNT = max(2, min(4, (os.cpu_count() or 1) // 2))


class _Job(NamedTuple):
    work: Callable[[], Any]
    future: asyncio.Future[Any]


class TextThreads:
    """`count` threads, of which one owner has at most all but one at a time.

    Owners take turns; the jobs of one owner are begun in order. Everything but the work
    itself runs on the loop that `run` is called on.
    """

    def __init__(self, count: int = COUNT) -> None:
        self._count = count
        self._threads = ThreadPoolExecutor(count, "llmkernel-text")
        self._waiting: dict[Hashable, deque[_Job]] = {}
        """By owner, whose turn is next first; no queue is empty."""
        self._running: Counter[Hashable] = Counter()

    def run(self, owner: Hashable, work: Callable[[], T]) -> asyncio.Future[T]:
        """The result of `work()`, done in a thread. Cancelling it spares work that is not begun."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(_Job(work, future))
        self._begin()
        return future

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        for jobs in self._waiting.values():
            for job in jobs:
                job.future.cancel()
        self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while self._running.total() < self._count and (owner := self._next()) is not None:
            jobs = self._waiting.pop(owner)
            job = jobs.popleft()
            if jobs:
                self._waiting[owner] = jobs  # behind the others
            if job.future.done():
                continue
            self._running[owner] += 1
            begun = asyncio.get_running_loop().run_in_executor(self._threads, job.work)
            begun.add_done_callback(partial(self._ended, owner, job.future))

    def _next(self) -> Hashable | None:
        most = self._count - 1
        return next((owner for owner in self._waiting if self._running[owner] < most), None)

    def _ended(self, owner: Hashable, future: asyncio.Future[T], begun: asyncio.Future[T]) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        if not future.done():
            _copy(begun, future)
        elif not begun.cancelled():
            begun.exception()  # nobody wants to know any more; asyncio would log it, text and all
        self._begin()


def _copy(begun: asyncio.Future[T], future: asyncio.Future[T]) -> None:
    if begun.cancelled():
        future.cancel()
    elif (error := begun.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(begun.result())
