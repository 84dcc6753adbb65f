"""The one tornado handler: guards, reads, runs a route, words its failure, reports it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler, stream_request_body

from llmkernel.errors import Draining, SlowConsumer
from llmkernel.gateway.dialects import Dialect
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import Refusal, failure_of
from llmkernel.gateway.record import Record
from llmkernel.gateway.routes import Route
from llmkernel.gateway.unread import read_or_cut
from llmkernel.gateway.unsupported import dialect_of, no_route

if TYPE_CHECKING:
    from llmkernel.gateway.gateway import Gateway

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(?:, *[A-Za-z0-9_-]+){0,63}")
_DIGITS = 20
"""Digits of a length that are looked at; what comes of zeros before them is counted as it is read."""
_JSON_TYPE = re.compile(r"application/(?:[\w.-]+\+)?json", re.IGNORECASE)


@stream_request_body
class Serving(RequestHandler):
    """All methods of one path. A subclass says who may come in (`admit`).

    Whatever ends a request, the gateway's `finished` is called once with its record.
    """

    gateway: Gateway
    routes: Mapping[str, Route]

    def initialize(self, gateway: Gateway, routes: Mapping[str, Route]) -> None:
        """Called by tornado for each request."""
        self.gateway = gateway
        self.routes = routes
        self._chunks: list[bytes] = []
        self._size = 0
        self._work: asyncio.Task[None] | None = None
        self._exchange: Exchange | None = None
        self._gone = False
        method = "GET" if self.request.method == "HEAD" else str(self.request.method)
        self.route = routes.get(method)
        self.record = Record(
            id=self._request_id(),
            method=method if method in self.SUPPORTED_METHODS else "other",
            route=next(iter(routes.values())).path if routes else "",
            dialect=self.dialect.name,
            generates=self.route is not None and self.route.generates,
        )
        self.set_header("X-Request-Id", self.record.id)
        # of others tornado would say something before anybody has looked at Host and token
        self.SUPPORTED_METHODS = (*self.SUPPORTED_METHODS, str(self.request.method))

    @property
    def dialect(self) -> Dialect:
        """Whose shape errors have here."""
        if self.route is not None:
            return self.route.dialect
        if self.routes:
            return next(iter(self.routes.values())).dialect
        return dialect_of(self.place)

    @property
    def place(self) -> str:
        """The path of the request as the table of routes has it."""
        return str(self.request.path)

    async def admit(self) -> str:
        """The principal of this request. Raises Refusal for one that may not go on."""
        raise NotImplementedError

    def set_default_headers(self) -> None:
        """Headers of every answer, errors included."""
        super().set_default_headers()
        self.set_header("Server", "llmkernel")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        if hasattr(self, "record"):  # not yet when tornado makes the handler
            self.set_header("X-Request-Id", self.record.id)

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """A part of the address as text; what is no UTF-8 in it names nothing that there is."""
        del name
        return value.decode(errors="replace")

    def compute_etag(self) -> None:
        """None: nothing here is worth asking for twice."""

    # Reading -------------------------------------------------------------------

    async def prepare(self) -> None:
        """Refuse what need not be read."""
        self.record.principal = await self.admit()
        if self._finished:
            return
        if self.route is None:
            raise self._no_route()
        self._check_length()
        if self.route.body is not None:
            self._check_coding()
            if not self.route.any_content_type:
                self._check_content_type()

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body, up to the limit."""
        self._size += len(chunk)
        if self._size <= self.gateway.settings.limits.payload_limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def _check_length(self) -> None:
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal():
            # its first digits tell enough, and Python makes no number of thousands of them
            self._check_size(int(length[:_DIGITS]))

    def _check_size(self, size: int) -> None:
        limit = self.gateway.settings.limits.payload_limit
        if size > limit:
            raise Refusal("too_large", f"The body is larger than {limit} bytes.")

    def _check_coding(self) -> None:
        given = self.request.headers.get("Content-Encoding", "identity").strip().lower()
        if given != "identity":
            raise Refusal("content_type", "Send the body as it is: Content-Encoding is not taken.")

    def _check_content_type(self) -> None:
        given = self.request.headers.get("Content-Type", "").partition(";")[0].strip()
        if not _JSON_TYPE.fullmatch(given):
            raise Refusal("content_type", "Send the body as `Content-Type: application/json`.")

    def _no_route(self) -> Refusal:
        if not self.routes:
            return Refusal("not_found", no_route(self.place))
        allowed = ", ".join(sorted(self.routes))
        return Refusal("method", f"Use {allowed} here.", headers={"Allow": allowed})

    def _request_id(self) -> str:
        given = self.request.headers.get("X-Request-Id", "")
        return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)

    # Answering -----------------------------------------------------------------

    async def _serve(self, **path: str) -> None:
        self._check_size(self._size)
        assert self.route is not None, "prepare has found it"
        body = b"".join(self._chunks)
        self._chunks.clear()
        stream = self._stream()
        exchange = Exchange(self, self.gateway, self.route, self.record, path, body)
        self._exchange = exchange
        # a task of its own, so that a client that goes away cancels it and nothing else
        self._work = asyncio.create_task(self._run(exchange))
        self.gateway.running.add(self._work)
        try:
            with self.gateway.leavers.watch(stream):
                await self._work
        except asyncio.CancelledError:
            if not self._gone and not self._work.cancelled():
                self._work.cancel()
                raise
            self._cut()
        finally:
            self.gateway.running.discard(self._work)
            self._report()
        await read_or_cut(stream, self.gateway.settings.write_seconds)

    def _stream(self) -> IOStream | None:
        """The connection of the request; None where it is none of tornado's."""
        return getattr(self.request.connection, "stream", None)

    async def _run(self, exchange: Exchange) -> None:
        await exchange.turn()
        with self.gateway.observe(exchange, self.request.headers):
            try:
                with self._permit():
                    await exchange.route.act(exchange)
            except asyncio.CancelledError:
                if self._gone or not self.gateway.aborting:
                    raise
                await self._fail(Draining("The gateway stopped before the answer was whole."))
            except Exception as error:  # noqa: BLE001 - the one place where failures get their words
                await self._fail(error)
            finally:
                if exchange.outflow is not None:
                    exchange.outflow.stop()
        if not self._finished:
            self.finish()

    def _permit(self) -> contextlib.AbstractContextManager[None]:
        assert self.route is not None, "prepare has found it"
        return self.gateway.permits.take() if self.route.permit else contextlib.nullcontext()

    async def _fail(self, error: Exception) -> None:
        failure = failure_of(error)
        self._note(error, failure.code)
        outflow = self._exchange.outflow if self._exchange is not None else None
        if outflow is None or not outflow.begun:
            self._word(error)
            return
        with contextlib.suppress(StreamClosedError, asyncio.TimeoutError):
            assert self._exchange is not None, "it has an outflow"
            self.write(self._exchange.last_words(failure))
            await asyncio.wait_for(asyncio.shield(self.flush()), 1.0)
            if not isinstance(error, SlowConsumer):
                return
        self._cut()  # it does not even take that, or takes nothing else

    def _cut(self) -> None:
        """End a connection whose answer is not whole, so that nobody takes it for one."""
        self.record.outcome = self.record.outcome or "dropped"
        stream = self.detach() if not self._finished else None
        if stream is not None:
            stream.close()

    def finish(self, chunk: Any = None) -> Any:
        """End the answer. One that came before the body was read ends the connection too."""
        if self._work is None and not self._headers_written:
            self.set_header("Connection", "close")  # tornado does close; clients should know
        return super().finish(chunk)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """The answer to whatever was raised outside of a route: by `prepare`, by tornado."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        self._word(error if isinstance(error, Exception) else _by_status(status_code))

    def _word(self, error: Exception) -> None:
        failure = failure_of(error)
        if not self.record.outcome:
            self._note(error, failure.code)
        self.clear_header("Content-Type")
        reply = self.dialect.reply(failure)
        self.set_status(reply.status)
        self.set_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        self.finish(reply.body)

    def _note(self, error: Exception, code: str) -> None:
        self.record.outcome = code
        if failure_of(error).status >= 500 and code == "internal":
            self.gateway.log.unexpected(self.record, error)

    # Ending --------------------------------------------------------------------

    def on_connection_close(self) -> None:
        """The client is gone: so is its request."""
        super().on_connection_close()
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    def on_finish(self) -> None:
        """Everything was handed over. Where a route runs, its end is what counts."""
        if self._work is None:
            self._report()

    def _report(self) -> None:
        self.record.status = self.get_status()
        self.record.outcome = self.record.outcome or "ok"
        self.record.end()
        self.gateway.finished(self.record)

    def log_exception(self, *args: Any) -> None:
        """Nothing here: `_note` logs what was unforeseen, without its words."""

    get = post = put = delete = patch = head = options = _serve


def _by_status(status: int) -> Exception:
    from tornado.web import HTTPError

    return HTTPError(status)


class OwnServing(Serving):
    """A route of a stand-alone gateway."""

    def set_default_headers(self) -> None:
        """A listed site may read every answer: tornado drops what is set later for an error."""
        super().set_default_headers()
        if hasattr(self, "gateway"):  # not yet when tornado makes the handler
            self._allow_origin()

    async def admit(self) -> str:
        """Host, Origin, token."""
        self._allow_origin()
        return self.gateway.guard.check(self.request, self.route)

    async def prepare(self) -> None:
        """Answer the question of a browser whether a listed site may call; else as ever."""
        if self.request.method != "OPTIONS":
            await super().prepare()
            return
        self.gateway.guard.check_host(self.request)
        self.gateway.guard.check_origin(self.request)
        if not self._allow_origin():
            await super().prepare()
            return
        self.set_status(204)
        self.record.outcome = "ok"
        self.finish()

    def _allow_origin(self) -> bool:
        origin = self.request.headers.get("Origin", "")
        if not origin or not self.gateway.guard.listed(origin):
            return False
        self.set_header("Access-Control-Allow-Origin", origin)
        self.set_header("Vary", "Origin")
        self.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        # clients in a browser send a dozen of their own; none lets a listed page do more
        wanted = self.request.headers.get("Access-Control-Request-Headers", "")
        names = wanted if _HEADER_NAMES.fullmatch(wanted) else "authorization, content-type"
        self.set_header("Access-Control-Allow-Headers", names)
        self.set_header("Access-Control-Expose-Headers", "x-request-id, retry-after")
        return True
