"""A gateway as a process of its own: sockets, signals, a stop that lets work end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from llmkernel import collector
from llmkernel.errors import InvalidRequest
from llmkernel.gateway.credentials import Token, find_token
from llmkernel.gateway.gateway import Gateway
from llmkernel.gateway.handler import OwnServing, Serving
from llmkernel.gateway.header_limit import Farewells, HeadedStream
from llmkernel.gateway.settings import MAX_HEADER_BYTES, Settings
from llmkernel.gateway.table import all_routes, by_path
from llmkernel.gateway.turns import Turns

_SKIPPABLE_BODY = 64 * 2**20
"""A body beyond payload_limit is refused by its length, then skipped, up to here."""
_BODY_SECONDS = 60.0


class BoundedServer(HTTPServer):
    """An HTTP server that closes connections beyond a number, and takes new ones by `turns`.

    Headers that are too large are answered before the connection is closed.
    """

    def initialize(self, *args: Any, max_connections: int = 1024, **kwargs: Any) -> None:
        """Called by tornado's constructor, with `turns` beside its own arguments."""
        self._turns: Turns = kwargs.pop("turns")
        super().initialize(*args, **kwargs)
        self._most = max_connections
        self._farewells = Farewells()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """A new connection."""
        self._turns.soon(self._handle, stream, address)

    def _handle(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if len(self._connections) >= self._most:
            stream.close()
        else:
            # nothing was read yet, so another stream may take the socket over
            headed = HeadedStream(
                stream.socket,
                self._farewells.say,
                max_buffer_size=stream.max_buffer_size,
                read_chunk_size=stream.read_chunk_size,
            )
            super().handle_stream(headed, address)

    async def close_all_connections(self) -> None:
        """Close what is left."""
        await super().close_all_connections()
        await self._farewells.close()


def rules(gateway: Gateway, handler: type[Serving], base: str = "") -> list[Any]:
    """The table of routes as tornado's rules, below `base`."""
    return [
        (base + next(iter(routes.values())).pattern, handler, _given(gateway, routes))
        for routes in by_path(all_routes()).values()
    ]


def application(gateway: Gateway) -> Application:
    """The tornado application of a stand-alone gateway."""
    return Application(
        rules(gateway, OwnServing),
        default_handler_class=OwnServing,
        default_handler_args=_given(gateway, {}),
        log_function=_no_log,  # the gateway writes its own
    )


class Server:
    """A gateway on its port. `url` is known once `start` has returned."""

    def __init__(self, settings: Settings, token: Token | None = None) -> None:
        self.settings = settings
        self.gateway = Gateway(settings, token or find_token())
        self.port = 0
        self._http: HTTPServer | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self, models: tuple[str, ...] = ()) -> None:
        """Bind, find or load models, then listen. Raises what loading raises."""
        sockets = _bind(self.settings)
        self.port = sockets[0].getsockname()[1]
        try:
            await self.gateway.start(models)
        except BaseException:
            for each in sockets:
                each.close()
            await self.gateway.close()
            raise
        self._http = BoundedServer(
            application(self.gateway),
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=max(_SKIPPABLE_BODY, self.settings.limits.payload_limit),
            body_timeout=_BODY_SECONDS,
            idle_connection_timeout=self.settings.idle_seconds,
            turns=self.gateway.turns,
            max_connections=self.settings.max_connections,
        )
        self._http.add_sockets(sockets)
        self.gateway.log.event("listening", url=self.url)

    async def run(self) -> None:
        """Serve until a signal says stop: the first lets work end, the second does not."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        collector.settle()
        try:
            await self._stop.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take no new connection, let what is in flight end, close."""
        assert self._http is not None, "it was started"
        self._http.stop()
        self.gateway.log.event("stopping", in_flight=len(self.gateway.running))
        ending = asyncio.create_task(self.gateway.stop(self.settings.drain_seconds))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ending
            await self.gateway.stop(0)
        hurry.cancel()
        await self._http.close_all_connections()
        await self.gateway.close()
        self.gateway.log.event("stopped")

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()


def _bind(settings: Settings) -> list[socket.socket]:
    try:
        return bind_sockets(settings.port, settings.host)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InvalidRequest(
                f"The address {settings.host!r} cannot be used ({error.strerror}). Give one of "
                "this machine with --host, or 0.0.0.0 for all of them."
            ) from None
        raise InvalidRequest(
            f"Port {settings.port} cannot be used ({error.strerror}). Choose another with --port, "
            "or 0 for any free one."
        ) from None


def _given(gateway: Gateway, routes: Any) -> dict[str, Any]:
    return {"gateway": gateway, "routes": routes}


def _no_log(handler: RequestHandler) -> None:
    """Nothing: tornado's line would repeat the query."""
