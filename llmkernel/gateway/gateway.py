"""What all routes of a gateway share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tornado.httputil import HTTPHeaders

from llmkernel.config import DEMO_MODEL
from llmkernel.gateway.admission import Permits
from llmkernel.gateway.credentials import Token
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.guard import Guard
from llmkernel.gateway.leavers import Leavers
from llmkernel.gateway.logs import GatewayLog
from llmkernel.gateway.metrics import Metrics
from llmkernel.gateway.models import Models
from llmkernel.gateway.pulse import Pulse
from llmkernel.gateway.recent import Recent
from llmkernel.gateway.record import Record
from llmkernel.gateway.settings import Settings
from llmkernel.gateway.tracing import tracer_to
from llmkernel.gateway.turns import Turns


class Gateway:
    """The shared state of one gateway. Lives on one event loop.

    `token` is None inside Jupyter Server, which knows its users by itself.
    """

    def __init__(self, settings: Settings, token: Token | None = None) -> None:
        self.settings = settings
        self.models = Models(settings)
        self.turns = Turns()
        self.leavers = Leavers()
        self.permits = Permits(settings.limits.max_concurrent_requests)
        self.log = GatewayLog()
        self.recent = Recent()
        self.pulse = Pulse()
        self.metrics = Metrics(self.models, self.permits, self.pulse)
        self.tracer = tracer_to(settings.otlp_endpoint, settings.otlp_service_name)
        self.running: set[asyncio.Task[None]] = set()
        """The tasks of requests in flight."""
        self.aborting = False
        """Whether a stop has run out of patience."""
        self._waking = asyncio.Lock()
        self._awake = False
        self._guard = Guard(settings, token) if token is not None else None

    @property
    def guard(self) -> Guard:
        """The checks of a stand-alone gateway."""
        assert self._guard is not None, "Jupyter Server guards its own routes"
        return self._guard

    @property
    def up(self) -> bool:
        """Whether a request would be taken: the gateway is not stopping, and some model is up."""
        return self.models.up and not self.permits.closed

    async def start(self, models: tuple[str, ...] = ()) -> None:
        """Find the workers to serve; start `models`, or the embedded one where none runs."""
        await self.models.start(models, fallback=DEMO_MODEL)
        self._begin()

    async def awake(self) -> None:
        """Find the workers to serve, once, and start none."""
        async with self._waking:
            if not self._awake:
                await self.models.start()
                self._begin()
                self._awake = True

    def _begin(self) -> None:
        self.recent.start(self.models)
        self.pulse.start()

    async def stop(self, seconds: float) -> None:
        """Refuse new requests, let those in flight end for `seconds`, cut what is left."""
        self.permits.closed = True
        if self.running and seconds > 0:
            await asyncio.wait(set(self.running), timeout=seconds)
        self.aborting = True
        for task in set(self.running):
            task.cancel()
        if self.running:
            await asyncio.wait(set(self.running), timeout=5.0)

    async def close(self) -> None:
        """Let go of everything."""
        self.recent.stop()
        self.pulse.stop()
        await self.models.close()
        self.tracer.close()

    @contextmanager
    def observe(self, exchange: Exchange, headers: HTTPHeaders) -> Iterator[None]:
        """Around the work of a request."""
        with self.tracer.request(exchange.record, headers):
            yield

    def finished(self, record: Record) -> None:
        """A request is over: tell everybody who keeps count."""
        self.log.request(record)
        self.metrics.count(record)
        if record.generates:
            self.recent.add(record)
