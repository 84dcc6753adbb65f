"""The last requests and the speed over time, for the status page. No text is in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from llmkernel.gateway.record import Record

if TYPE_CHECKING:
    from llmkernel.gateway.models import Models

REQUESTS = 50
SAMPLES = 300
"""Five minutes, one a second."""


class Past(msgspec.Struct, frozen=True):
    """A request that is over."""

    at: str
    route: str
    model: str
    status: int
    outcome: str
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    first_token: float | None
    """Seconds until the first byte of a streamed answer."""


class Recent:
    """Bounded memories."""

    def __init__(self) -> None:
        self.requests: deque[Past] = deque(maxlen=REQUESTS)
        self.speeds: dict[str, deque[float]] = {}
        """Tokens per second of each worker, oldest first."""
        self._sampler: asyncio.Task[None] | None = None

    def add(self, record: Record) -> None:
        """Remember a request."""
        first = record.first_byte
        self.requests.appendleft(
            Past(
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                route=record.route,
                model=record.model,
                status=record.status,
                outcome=record.outcome,
                prompt_tokens=record.prompt_tokens,
                generated_tokens=record.generated_tokens,
                seconds=round(record.seconds, 4),
                first_token=None if first is None else round(first - record.began, 4),
            )
        )

    def start(self, models: Models) -> None:
        """Begin to sample."""
        self._sampler = asyncio.create_task(self._sample(models))

    def stop(self) -> None:
        """No more samples."""
        if self._sampler is not None:
            self._sampler.cancel()

    async def _sample(self, models: Models) -> None:
        last: dict[str, int] = {}
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                for name in self.speeds.keys() - models.replicas.keys():
                    del self.speeds[name]
                for name, replica in models.replicas.items():
                    if replica.report is None:
                        continue
                    made = replica.report.load.tokens_generated
                    gained = made - last.get(name, made)
                    last[name] = made
                    self.speeds.setdefault(name, deque(maxlen=SAMPLES)).append(max(0, gained))
                await asyncio.sleep(1.0)
