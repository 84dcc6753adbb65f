"""What one question to a worker brings back, handed from the link's thread to the caller.

A `Call` is put in by the caller and filled by the link; whatever arrives for it goes
into its inbox. An inbox belongs to one waiting caller, who may have several calls in
it. `SyncInbox` blocks its thread, `AsyncInbox` its task: the code above them is
written once, as coroutines that wait for nothing but an inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from llmkernel import protocol
from llmkernel.errors import ConnectionProblem, LLMKernelError

T = TypeVar("T")

TICK_SECONDS = 0.05
"""A kernel's loop that waits for a worker wakes this often, so that an interrupt gets through.

ipykernel schedules the cancellation of an async cell without waking its loop."""
_KERNEL = "ipykernel.kernelapp"
"""A module that every kernel has loaded, and nobody else."""

Question = (
    protocol.Submit | protocol.Tokenize | protocol.Detokenize | protocol.GetStatus | protocol.Stop
)
Answer = (
    protocol.Finished
    | protocol.Cancelled
    | protocol.Refused
    | protocol.Failed
    | protocol.Tokens
    | protocol.Text
    | protocol.StatusReport
    | protocol.Stopping
)
_ids = itertools.count(1)


class Arrival(NamedTuple):
    """A part of an answer, or with None the news that `call.outcome` is there."""

    call: Call
    delta: protocol.StreamDelta | None


class Inbox(Protocol):
    """Where a caller waits. `put` may be called from any thread."""

    def put(self, arrival: Arrival) -> None:
        """Add something and wake whoever waits."""

    async def get(self, timeout: float | None = None) -> Arrival | None:
        """The next arrival; None if none comes within `timeout` seconds."""


class Call:
    """One question and what has come of it.

    `outcome` is set once: the last message of the worker, or the error that stands for
    it. `tokens` counts what was delivered.
    """

    __slots__ = (
        "_seq",
        "cancelled",
        "delivered",
        "inbox",
        "outcome",
        "position",
        "prompt_tokens",
        "question",
        "sent",
        "tokens",
        "ungranted",
    )

    def __init__(self, question: Question, inbox: Inbox) -> None:
        self.question: Question = msgspec.structs.replace(question, id=next(_ids))
        self.inbox = inbox
        self.outcome: Answer | LLMKernelError | None = None
        self.sent = False
        self.cancelled = False
        """Whether the caller does not want it any more."""
        self.position: int | None = None
        """Requests that were ahead of it in the queue when the worker took it."""
        self.prompt_tokens: int | None = None
        """Tokens of the prompt, as the worker counted them when it took it."""
        self.delivered: list[protocol.StreamDelta] = []
        """All parts so far. An interrupt may come after one has left the inbox and before its
        reader has it; then it is found here."""
        self.tokens = 0
        self.ungranted = 0
        self._seq = 0

    @property
    def id(self) -> int:
        """The id on the wire, used once in this process."""
        return self.question.id

    def deliver(self, delta: protocol.StreamDelta) -> None:
        """Take a delta. Raises ConnectionProblem if one before it is missing."""
        if delta.seq != self._seq:
            raise ConnectionProblem(
                f"Part {self._seq} of the answer is missing; part {delta.seq} came instead."
            )
        self._seq += 1
        self.tokens += len(delta.token_ids)
        self.ungranted += len(delta.token_ids)
        self.delivered.append(delta)
        self.inbox.put(Arrival(self, delta))

    def end(self, outcome: Answer | LLMKernelError) -> None:
        """Nothing more will come."""
        if self.outcome is None:
            self.outcome = outcome
            self.inbox.put(Arrival(self, None))


class SyncInbox:
    """Blocks the calling thread. Ctrl-C gets through at once."""

    def __init__(self) -> None:
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def put(self, arrival: Arrival) -> None:
        """Add something and wake whoever waits."""
        self._arrivals.put(arrival)

    async def get(self, timeout: float | None = None) -> Arrival | None:
        """The next arrival; None if none comes within `timeout` seconds. Never suspends."""
        try:
            return self._arrivals.get(timeout=None if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return None


class AsyncInbox:
    """Suspends the calling task. Belongs to the loop that it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tick = TICK_SECONDS if _KERNEL in sys.modules else None
        self._arrivals: deque[Arrival] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self._woken = False

    def put(self, arrival: Arrival) -> None:
        """Add something and wake whoever waits."""
        self._arrivals.append(arrival)
        if threading.get_ident() == self._thread:
            self._resolve()
        elif not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._wake)

    async def get(self, timeout: float | None = None) -> Arrival | None:
        """The next arrival; None if none comes within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._arrivals:
            left = self._tick
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                left = min(left, self._tick or left)
            await self._wait(left)
        return self._arrivals.popleft()

    async def _wait(self, seconds: float | None) -> None:
        """Until something was put in, or so long."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if seconds is None else self._loop.call_later(seconds, self._resolve)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        self._woken = False
        self._resolve()

    def _resolve(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # its task was cancelled
                waiter.set_result(None)


InboxMaker = Callable[[], Inbox]


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but a SyncInbox, which blocks.

    So it runs through at once, in the caller's thread, inside a running loop too.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("a blocking call was suspended")
