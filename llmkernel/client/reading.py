"""A request in flight, and reading its answer to the end, whatever that end is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable

from llmkernel import protocol
from llmkernel.client.calls import Arrival, Call, Inbox
from llmkernel.client.generation import Collector, Delta, Generation, generation
from llmkernel.client.link import Link
from llmkernel.errors import (
    LLMKernelError,
    RequestCancelled,
    RequestEnded,
    RequestTimedOut,
    from_code,
)

FAREWELL_SECONDS = 0.4
"""How long an interrupt waits for the worker to hand over the partial answer."""
_LATE_SECONDS = 2.0


class InFlight:
    """A request that was sent, and what has come of it. `timeout` in seconds covers all.

    One that nobody holds any more is cancelled.
    """

    def __init__(
        self, link: Link, submit: protocol.Submit, inbox: Inbox, timeout: float | None
    ) -> None:
        self.submit = submit
        self.call = Call(submit, inbox)
        self._link = link
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._late = False
        self._collector = Collector()
        link.start(self.call)

    @property
    def over(self) -> bool:
        """Whether its last message has come."""
        return self.call.outcome is not None

    @property
    def left(self) -> float | None:
        """Seconds until it has to be over."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    @property
    def generation(self) -> Generation:
        """The answer, or as much of it as has come."""
        outcome = self.call.outcome
        broken = isinstance(outcome, LLMKernelError | protocol.Failed | protocol.Refused)
        return generation(
            self._collector.outputs(
                getattr(outcome, "outputs", ()), "error" if broken else "cancelled"
            ),
            getattr(outcome, "usage", protocol.Usage(completion_tokens=self.call.tokens)),
            getattr(outcome, "timings", protocol.Timings()),
            getattr(outcome, "prompt_token_ids", None) or None,
            getattr(outcome, "prompt_logprobs", None),
        )

    def add(self, delta: protocol.StreamDelta) -> Delta:
        """Take a part of the answer."""
        return self._collector.add(delta)

    def catch_up(self) -> None:
        """Take what was delivered and lost on its way by an interrupt."""
        for delta in self.call.delivered:
            self._collector.add(delta)

    def cancel(self) -> None:
        """It is not wanted any more; its last message still comes."""
        if not self.over and not self.call.cancelled:
            self._link.cancel(self.call)

    def time_out(self) -> None:
        """Its time is up: cancel it, and let `result` say so."""
        self._late = True
        self._deadline = None
        self.cancel()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # never began
            self.cancel()

    def result(self) -> Generation:
        """The answer of a request that is over; partial where it was cancelled from here.

        Raises how it failed, with what came so far in `partial`.
        """
        error = self._error()
        if error is None:
            return self.generation
        if isinstance(error, RequestEnded):
            error.partial = self.generation
        raise error

    def _error(self) -> LLMKernelError | None:
        match self.call.outcome:
            case protocol.Failed() | protocol.Refused() as failed:
                return from_code(failed.code, failed.message, failed.data)
            case LLMKernelError() as error:
                return error
            case protocol.Finished():
                return None
        if self._late:
            return RequestTimedOut(f"The request was cancelled after {self._timeout:g} s.")
        if not self.call.cancelled:
            return RequestCancelled("The worker is stopping and cancelled the request.")
        return None


class Reading:
    """One answer, read as it comes.

    An interrupt or a cancelled task while it waits cancels the request in the worker;
    what came so far is in the exception's `partial`.
    """

    def __init__(
        self, link: Link, submit: protocol.Submit, inbox: Inbox, timeout: float | None
    ) -> None:
        self._link = link
        self._inbox = inbox
        self._whole: deque[Delta] = deque()
        self._over = False
        self.request = InFlight(link, submit, inbox, timeout)

    async def next(self) -> Delta | None:
        """What came next; None after the end. Raises how the request failed.

        Several readers share what comes; each of them hears of the end.
        """
        if self._over:
            return self._whole.popleft() if self._whole else None
        self._link.check()
        try:
            return await self._next()
        except (KeyboardInterrupt, asyncio.CancelledError) as stop:
            self._over = True
            await farewell([self.request], self._inbox, FAREWELL_SECONDS)
            self._inbox.put(Arrival(self.request.call, None))  # for other readers
            stop.partial = self.request.generation  # type: ignore[union-attr]
            raise

    async def all(self) -> Generation:
        """The whole answer."""
        while await self.next() is not None:
            pass
        return self.request.result()

    def close(self) -> None:
        """The rest is not wanted. Any thread."""
        self._over = True
        self._whole.clear()
        self.request.cancel()

    async def leave(self) -> None:
        """Cancel what is left, and take in the worker's own count of it if it is quick."""
        self.close()
        await farewell([self.request], self._inbox, FAREWELL_SECONDS)

    async def _next(self) -> Delta | None:
        arrival = await self._inbox.get(self.request.left)
        if arrival is None:
            self.request.time_out()
            await farewell([self.request], self._inbox, _LATE_SECONDS)
        elif arrival.delta is not None:
            return self.request.add(arrival.delta)
        self._inbox.put(Arrival(self.request.call, None))  # for the next reader
        if self._over:
            return self._whole.popleft() if self._whole else None
        self._over = True
        self._whole += _not_streamed(self.request.result())
        if self.request.call.tokens:
            self._whole.clear()
        return self._whole.popleft() if self._whole else None


async def farewell(requests: Iterable[InFlight], inbox: Inbox, seconds: float) -> None:
    """Cancel, and give the worker a moment to say how far it had come."""
    waiting = {request.call.id: request for request in requests}
    for request in waiting.values():
        request.cancel()
    deadline = time.monotonic() + seconds
    while any(not request.over for request in waiting.values()):
        if await inbox.get(max(0.0, deadline - time.monotonic())) is None:
            break
    for request in waiting.values():
        request.catch_up()


def _not_streamed(whole: Generation) -> list[Delta]:
    """The answers as if they had been streamed, for those that only came at the end."""
    return [
        Delta(answer.text, answer.token_ids, index, answer.logprobs)
        for index, answer in enumerate(whole.samples)
        if answer.token_ids
    ]
