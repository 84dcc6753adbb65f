"""Who is in the engine, and what happened to them in this step: every sequence ends exactly once."""

from __future__ import annotations

import time

from llmkernel.errors import LLMKernelError
from llmkernel.worker.counters import Counters
from llmkernel.worker.sequence import (
    EndEvent,
    EngineEvent,
    Request,
    Sampled,
    Sequence,
    TokenEvent,
)


class Ledger:
    """The requests that have not ended, and the events that nobody was told yet."""

    def __init__(self, counters: Counters) -> None:
        self.requests: dict[int, Request] = {}
        self._events: list[EngineEvent] = []
        self._counters = counters

    def enrol(self, request: Request) -> None:
        """Take a request in and make its sequences."""
        request.arrived = request.arrived or time.monotonic()
        request.sequences = [
            Sequence(request, index, list(request.prompt), output_start=len(request.prompt))
            for index in range(request.params.width)
        ]
        self.requests[request.key] = request

    def unfinished(self, key: int) -> list[Sequence]:
        """The sequences of a request that have not ended; none of an unknown one."""
        request = self.requests.get(key)
        return [s for s in request.sequences if not s.ended] if request is not None else []

    def gain(self, sequence: Sequence, sampled: Sampled, now: float) -> None:
        """A token was read back at `now`."""
        request = sequence.request
        request.first_token = request.first_token or now
        sequence.token_ids.append(sampled.token_id)
        self._counters.generated += 1
        self._events.append(TokenEvent(request, sequence.index, sampled))

    def end(
        self,
        sequence: Sequence,
        reason: str,
        stop_reason: int | None = None,
        error: LLMKernelError | None = None,
    ) -> None:
        """The one place where a sequence ends."""
        assert not sequence.ended, "a sequence ended twice"
        sequence.ended = True
        request = sequence.request
        self._events.append(EndEvent(request, sequence.index, reason, stop_reason, error))
        if all(other.ended for other in request.sequences):
            request.ended = time.monotonic()
            self._counters.cached += request.cached_tokens
            self._counters.finished += error is None
            self._counters.failed += error is not None
            del self.requests[request.key]

    def take_events(self) -> list[EngineEvent]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events
