"""One request and its answer, as the code of a route sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llmkernel.client.generation import Generation
from llmkernel.client.streams import AsyncStream
from llmkernel.errors import InvalidRequest
from llmkernel.gateway import bodies
from llmkernel.gateway.dialects import JSON, Reply
from llmkernel.gateway.faults import Failure
from llmkernel.gateway.outflow import EVENT_STREAM, Outflow
from llmkernel.gateway.record import Record
from llmkernel.gateway.routes import Route

if TYPE_CHECKING:
    from tornado.web import RequestHandler

    from llmkernel.gateway.gateway import Gateway
    from llmkernel.gateway.replica import Replica

T = TypeVar("T")
_PORTION = 250
"""Values of a long list that are made and sent without a pause: a millisecond or two."""
_LARGE = 128 * 1024
"""Bytes of a body whose work is done in a thread."""


class Exchange:
    """What a route is given: the request, the gateway, and ways to answer.

    The task that runs a route is cancelled when its client is gone, and the requests
    that it awaits from a worker with it. Any exception becomes the dialect's error.
    """

    def __init__(
        self,
        handler: RequestHandler,
        gateway: Gateway,
        route: Route,
        record: Record,
        path: Mapping[str, str],
        body: bytes,
    ) -> None:
        self.gateway = gateway
        self.route = route
        self.record = record
        self.path = path
        self.body = body
        self.outflow: Outflow | None = None
        self.last_words: Callable[[Failure], bytes] = route.dialect.last_words
        """What ends its stream when it breaks; a stream that numbers its events has its own."""
        self._handler = handler

    @property
    def id(self) -> str:
        """The request's id: the client's `x-request-id`, or one made here."""
        return self.record.id

    @property
    def principal(self) -> str:
        """Who asks."""
        return self.record.principal

    def header(self, name: str, default: str = "") -> str:
        """A header of the request."""
        return str(self._handler.request.headers.get(name, default))

    def query(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        return self._handler.get_query_argument(name, default)

    def read(self, kind: type[T]) -> T:
        """The body as the route's schema. Raises Refusal."""
        return bodies.decode(self.body, kind)

    async def apart(self, work: Callable[[Any], T], value: Any) -> T:
        """What `work` makes of the body's value; in a thread where the body is large."""
        if len(self.body) <= _LARGE:
            return work(value)
        return await asyncio.to_thread(work, value)

    async def turn(self) -> None:
        """Let others have the loop where they wait for it; before work that many begin at once."""
        await self.gateway.turns.take()

    def lease(self, model: str | None = None) -> AbstractAsyncContextManager[Replica]:
        """A worker for a `model` field, held until the block ends; see Models.lease."""
        return self.gateway.models.lease(model, self.record)

    @contextmanager
    def permits(self, answers: int, field: str) -> Iterator[None]:
        """A permit for each of several answers; the route has taken the first.

        Raises InvalidRequest that names `field` for more than there ever are, and Overloaded.
        """
        most = self.gateway.permits.most
        if answers > most:
            raise InvalidRequest(
                f"{field} asks for {answers} answers in one request, and this gateway makes up to "
                f"{most} at once (--max-concurrent-requests).",
                field=field,
            )
        with self.gateway.permits.take(answers - 1):
            yield

    def validated(self) -> None:
        """What the client asked for is understood; the time so far counts as validation."""
        self.record.validation = time.monotonic() - self.record.began

    async def counted(self, answer: Awaitable[Generation]) -> Generation:
        """Wait for a worker's answer; the metrics, the log and the status page get its numbers.

        What came of one that breaks, or that nobody waits for any more, counts as well.
        """
        try:
            whole = await answer
        except BaseException as error:
            partial = getattr(error, "partial", None)
            if partial is not None:
                self.record.add(partial)
            raise
        self.record.add(whole)
        return whole

    @asynccontextmanager
    async def reading(self, *streams: AsyncStream) -> AsyncIterator[None]:
        """Around the reading of answers: closes them, and counts what came of them."""
        try:
            yield
        except BaseException:
            for stream in streams:
                stream.close()
            for stream in streams:
                await stream.aclose()
                self.record.add(stream.generation)
            raise
        for stream in streams:
            self.record.add(stream.generation)

    def answer(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with JSON."""
        self.reply(Reply(status, msgspec.json.encode(value), JSON, dict(headers or {})))

    async def answer_list(
        self, values: Iterator[Any], *, before: bytes = b"[", after: bytes = b"]"
    ) -> None:
        """Answer with a list in JSON, the bytes around it included.

        A long one is made and sent in portions, between which others have the loop.
        """
        out: Outflow | None = None
        data = before
        for number, portion in enumerate(_portions(values)):
            if number:
                out = out or self.stream(JSON)
                await out.write(data)
                data = b"," + portion
            else:
                data += portion
        if out is None:
            self.reply(Reply(200, data + after))
        else:
            await out.write(data + after)

    def text(self, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        """Answer with a text."""
        self.reply(Reply(200, text.encode(), content_type))

    def reply(self, reply: Reply) -> None:
        """Answer with bytes."""
        handler = self._handler
        handler.set_status(reply.status)
        handler.set_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            handler.set_header(name, value)
        handler.finish(reply.body)

    def stream(self, content_type: str = EVENT_STREAM) -> Outflow:
        """Begin a streamed answer; nothing is sent before its first write."""
        settings = self.gateway.settings
        self.record.streamed = True
        self.outflow = Outflow(
            self._handler,
            content_type,
            self.record,
            self.gateway.turns,
            write_seconds=settings.write_seconds,
            idle=settings.keep_alive_seconds,
        )
        return self.outflow


def _portions(values: Iterator[Any]) -> Iterator[bytes]:
    """The values as JSON, some at a time, without the brackets of the list."""
    while portion := list(islice(values, _PORTION)):
        yield msgspec.json.encode(portion)[1:-1]
