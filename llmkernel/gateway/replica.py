"""One worker as the gateway sees it: its client, its last report, who uses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmkernel.client import AsyncClient
from llmkernel.client.background import Home
from llmkernel.client.calls import AsyncInbox
from llmkernel.client.core import Core
from llmkernel.client.link import Link
from llmkernel.client.questions import Messages
from llmkernel.connection import Connection
from llmkernel.errors import NotReady
from llmkernel.protocol import ModelInfo, StatusReport

REPORT_SECONDS = 5.0
"""How long a worker may take to say how it is."""
AGAIN_SECONDS = 1.0
"""The same for one that has not done so in time, while a request waits."""


class Replica:
    """A running worker. `in_flight` counts the gateway's own requests to it.

    The connection to it lives in `home`.
    """

    def __init__(self, connection: Connection, order: int, home: Home | None = None) -> None:
        self.order = order
        """When the gateway first saw it, so that the first one stays the default."""
        self.report: StatusReport | None = None
        self.in_flight = 0
        self.used = time.monotonic()
        self.keep: float | None = None
        """Seconds without work after which the gateway stops it; None is never."""
        self.leaving = False
        self.broken = False
        """Its engine has died, so that it leaves without having been told to."""
        self.silent = False
        """It did not answer when it was last asked how it is."""
        self.quiet = asyncio.Event()
        """Set while the gateway has nothing in flight there."""
        self.quiet.set()
        self._ended = False
        """Whether it does not run any more."""
        self.gone = asyncio.Event()
        """Set once it has been stopped, or stays after all."""
        self._connection = connection
        self._link = Link(connection, home=home)
        self._client = AsyncClient(self._link)
        self._core = Core(self._link, AsyncInbox)

    @property
    def connection(self) -> Connection:
        """Where it is."""
        return self._connection

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._connection.name

    @property
    def model(self) -> str:
        """The model's id, as it was started."""
        return self._connection.model

    @property
    def instance(self) -> str:
        """Which run of the worker this is."""
        return self._connection.instance

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._connection.alive

    @property
    def client(self) -> AsyncClient:
        """The way to it."""
        return self._client

    @property
    def info(self) -> ModelInfo:
        """What it holds. Raises NotReady while it loads."""
        if self.report is None or self.report.model is None:
            raise NotReady(f"The model of the worker {self.name!r} is still loading.")
        return self.report.model

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return (
            self.report is not None
            and self.report.state == "ready"
            and not self.leaving
            and not self.silent
        )

    @property
    def pressure(self) -> tuple[float, int]:
        """How busy it is, for choosing between replicas: less is better.

        What others have there is known from the last report, which is up to a second
        old; our own share is known now, and part of that report already.
        """
        load = self.report.load if self.report is not None else None
        theirs = load.running + load.waiting if load is not None else 0
        width = self.report.model.max_concurrent if self.report and self.report.model else 1
        return max(self.in_flight, theirs) / max(width, 1), self.order

    @property
    def idle_seconds(self) -> float:
        """How long nobody has used it: neither the gateway nor anybody else."""
        load = self.report.load if self.report is not None else None
        if self.in_flight or (load is not None and load.running + load.waiting):
            self.used = time.monotonic()
        return time.monotonic() - self.used

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Count a request of the gateway's own."""
        self.in_flight += 1
        self.quiet.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.used = time.monotonic()
            if not self.in_flight:
                self.quiet.set()
            self._close_if_over()

    async def ask(self) -> StatusReport:
        """Ask it how it is, and keep the answer."""
        loaded = self.report is not None and self.report.state == "ready"
        self.report = await self.client.status(steps=True)
        self.silent = False
        if not loaded:
            self.used = time.monotonic()  # what it took to load is not time without work
        return self.report

    async def spell(self, text: str | Messages) -> tuple[list[int], list[str]]:
        """The tokens of a text or a conversation: their ids, and the text of each."""
        tokens = await self._core.tokens(text, add_special_tokens=True)
        return tokens.token_ids, tokens.texts

    def end(self) -> None:
        """It does not run any more: end the connection once nobody waits for an answer there.

        Until then, since it is the connection that knows how a worker ended.
        """
        self._ended = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._ended and not self.in_flight:
            self.close()

    def close(self) -> None:
        """End the connection, not the worker."""
        self._link.close()
