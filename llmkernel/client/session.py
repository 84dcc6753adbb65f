"""One encrypted connection to a worker: hello, messages, and the news that it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from llmkernel import protocol
from llmkernel._version import __version__
from llmkernel.connection import Connection
from llmkernel.errors import (
    ConnectionProblem,
    InvalidRequest,
    LLMKernelError,
    NotAuthorized,
    ProtocolMismatch,
    WorkerNotFound,
    from_code,
)
from llmkernel.pump import Pump

HANDSHAKE_MS = 2000
HEARTBEAT_MS = 500
HEARTBEAT_TIMEOUT_MS = 1500
_NEVER_MS = 10**8
_LAST_WORDS_SECONDS = 0.05
"""How long to wait for the sign that everything received has been handed over."""
_ENDED = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
_REFUSED = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Session:
    """A connection from its first packet to its end; never reconnects.

    `on_message` gets every message after the Welcome. `on_broken(session, error)` is
    called once at most: `error` says what the worker said about it, or is None where
    the connection just ended. Lives on `loop`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        *,
        on_welcome: Callable[[Session], None],
        on_message: Callable[[protocol.WorkerMessage], None],
        on_broken: Callable[[Session, LLMKernelError | None], None],
    ) -> None:
        self.connection = connection
        self.welcome: protocol.Welcome | None = None
        self.heard = loop.time()
        self._on_welcome = on_welcome
        self._on_message = on_message
        self._on_broken = on_broken
        self._loop = loop
        self._broken = False
        self._socket = _client_socket(context, connection)
        try:
            monitor = self._socket.get_monitor_socket(_ENDED | _REFUSED)
        except zmq.ZMQError:
            self._socket.close()
            raise
        self._events = Pump(loop, monitor, self._on_event)
        self._messages = Pump(loop, self._socket, self._on_frames)
        self._socket.connect(connection.endpoint)
        self.send(
            protocol.Hello(protocol=protocol.PROTOCOL_VERSION, package=__version__, client="python")
        )

    def send(self, message: protocol.ClientMessage) -> None:
        """Send; what cannot be sent any more is dropped, as the connection is about to end."""
        data = protocol.encode(message)
        try:
            self._socket.send(data, zmq.DONTWAIT)
        except zmq.Again:
            self._break(ConnectionProblem("The worker takes no more messages."))
        else:
            self._loop.call_soon(self._messages.poke)

    def check(self, message: protocol.ClientMessage) -> None:
        """Raise ProtocolMismatch for a request that the worker is too old to be trusted with."""
        assert self.welcome is not None, "it has said hello"
        if not isinstance(message, protocol.Submit):
            return
        theirs = self.welcome.protocol
        for field, since in protocol.SINCE.items():
            if theirs < since and getattr(message, field):
                raise ProtocolMismatch(
                    f"The worker {self.connection.name!r} runs an older llmkernel "
                    f"(protocol {theirs[0]}.{theirs[1]}) and would ignore {field}. Restart the "
                    "worker, then ask again."
                )

    def close(self) -> None:
        """End the connection at once, without calling anybody; again is no error."""
        if not self._broken:
            self._broken = True
            if not self._socket.closed:
                self._socket.disable_monitor()
        self._events.close()
        self._messages.close()

    def leave(self, seconds: float) -> None:
        """End it after `seconds`, in which what was sent may go out; nobody is called any more.

        Meanwhile it is read. A closed socket that lingers is not, and should the worker go then,
        ZeroMQ 4.3.5 ends this process: it sends a heartbeat on a connection that it has given up
        (libzmq's issue 4364).
        """
        self._on_welcome = self._on_message = _ignore
        self._on_broken = _ignore
        self._loop.call_later(seconds, self.close)

    def _break(self, error: LLMKernelError | None) -> None:
        if not self._broken:
            self.close()
            self._on_broken(self, error)

    def _on_event(self, frames: list[zmq.Frame]) -> None:
        event = parse_monitor_message([frame.bytes for frame in frames])["event"]
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            name = self.connection.name
            self._break(NotAuthorized(f"The worker {name!r} does not know the key in its file."))
        elif event == zmq.EVENT_DISCONNECTED:
            # ZeroMQ tells of the end before it hands over what came last
            self._loop.call_later(_LAST_WORDS_SECONDS, self._end)
        else:
            self._end()

    def _end(self) -> None:
        """It ended. What was received before still counts."""
        if not self._broken:
            self._messages.drain()
            self._break(None)

    def _on_frames(self, frames: list[zmq.Frame]) -> None:
        self.heard = self._loop.time()
        try:
            message = protocol.decode_worker(frames[0].bytes)
        except InvalidRequest as error:
            self._break(ConnectionProblem(f"The worker sent what cannot be read: {error.message}"))
            return
        if isinstance(message, protocol.Goodbye):
            self._break(from_code(message.code, message.message))
        elif self.welcome is not None:
            self._on_message(message)
        elif isinstance(message, protocol.Welcome):
            self._on_hello(message)

    def _on_hello(self, welcome: protocol.Welcome) -> None:
        ours, theirs = protocol.PROTOCOL_VERSION, welcome.protocol
        if theirs[0] != ours[0]:
            self._break(
                ProtocolMismatch(
                    f"The worker speaks protocol {theirs[0]}.{theirs[1]} "
                    f"(llmkernel {welcome.package}), this side {ours[0]}.{ours[1]}."
                )
            )
        elif welcome.instance != self.connection.instance:
            self._break(
                WorkerNotFound(
                    f"Another worker answers where {self.connection.name!r} was: its connection "
                    "file is out of date."
                )
            )
        else:
            self.welcome = welcome
            self._on_welcome(self)


def _ignore(*_: object) -> None:
    """What comes for somebody who is gone."""


def _client_socket(
    context: zmq.Context[zmq.Socket[bytes]], connection: Connection
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = connection.server_public_key.encode()
    socket.curve_publickey = connection.client_public_key.encode()
    socket.curve_secretkey = connection.client_secret_key.encode()
    socket.maxmsgsize = protocol.MAX_WIRE_BYTES
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
    # A new connection needs a new hello, so the link makes one. Not -1: with it ZeroMQ
    # throws away what has been received and not read when a connection ends.
    socket.reconnect_ivl = _NEVER_MS
    socket.sndhwm = 0  # what waits here is bounded by what callers wait for
    socket.rcvhwm = 0
    socket.linger = 0
    return socket
