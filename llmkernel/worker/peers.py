"""The worker's socket, and what is known of each client connected to it.

The socket never waits: what a client has no room for goes into an outbox of bounded
size. A message that cannot be routed means that its client is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq

from llmkernel import paths, protocol
from llmkernel.config import WorkerConfig
from llmkernel.connection import Keys
from llmkernel.errors import SlowConsumer
from llmkernel.pump import Pump
from llmkernel.worker.inbox import Inbox, Letter
from llmkernel.worker.zap import AllowList

HANDSHAKE_MS = 2000
HEARTBEAT_MS = 500
HEARTBEAT_TIMEOUT_MS = 1500
_DISCONNECT_SECONDS = (0.02, 0.3)
"""When clients are looked at after a connection has ended: nothing tells when ZeroMQ has taken note of
it everywhere, and on a busy machine that takes a while."""
HIGH_WATER_MARK = 1024
LINGER_MS = 1000
BACKLOG = 1024
MAX_OUTBOX_BYTES = 16 * 2**20
_RETRY_SECONDS = 0.01
# plain numbers: the enumerations' own operators take longer than what they ask for
_NOW = int(zmq.DONTWAIT)
_NOW_WITH_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


@dataclass(slots=True, eq=False)
class Peer:
    """One connected client that has said hello."""

    routing_id: bytes
    principal: str
    watching: bool = False
    requests: dict[int, Any] = field(default_factory=dict)
    """What it has in flight, by its own ids; the desk keeps it."""
    gone: bool = False
    """Nothing can be sent any more."""
    last_sent: float = 0.0
    outbox: deque[bytes] = field(default_factory=deque)
    outbox_bytes: int = 0
    blocked_since: float = 0.0

    @property
    def name(self) -> str:
        """A name for the scheduler, which is fair between clients."""
        return self.routing_id.hex()


class Exchange:
    """The encrypted ROUTER socket with its allow-list.

    `on_message(routing_id, principal, data)` is called for each message of an admitted
    client, `on_gone(peer)` once, soon after a peer could not be reached or was cut
    because it took nothing for `patience` seconds, and `on_disconnect()` soon after some
    connection ended: ZeroMQ does not say whose.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        on_message: Callable[[bytes, str, bytes], None],
        on_gone: Callable[[Peer], None],
        on_disconnect: Callable[[], None],
        patience: float,
    ) -> None:
        self._on_message = on_message
        self._on_disconnect = on_disconnect
        self._disconnect_due = False
        self._events: Pump | None = None
        self._on_gone = on_gone
        self._patience = patience
        self._blocked: set[Peer] = set()
        self._retry_due = False
        self._poke_due = False
        self._pump: Pump | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._allowed = AllowList(self._context, {keys.client_public: keys.client_public})
        self.refused = self._allowed.refused
        self._socket = _server_socket(self._context, keys)

    def bind(self, config: WorkerConfig) -> str:
        """Bind and return the endpoint."""
        self._socket.bind(paths.bind_address(config.transport, config.name))
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return endpoint.rstrip("\0")

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Receive from now on."""
        self._loop = loop
        self._allowed.start(loop)
        self._pump = Pump(loop, self._socket, self._receive)
        self._inbox = Inbox(loop, self._open, self._pump.hold)
        monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._events = Pump(loop, monitor, self._on_event)

    def close(self) -> None:
        """Send what is queued for a bounded time and close; again is no error."""
        if self._context.closed:
            return
        if self._events is not None:
            self._socket.disable_monitor()
            self._events.close()
        if self._pump is not None:
            self._pump.close()
        self._socket.close()
        self._allowed.close()
        self._context.term()

    def send(self, peer: Peer, message: protocol.WorkerMessage) -> None:
        """Send, or keep it until the peer has room. Raises InvalidRequest for one too large."""
        data = protocol.encode(message)
        if peer.gone or self._socket.closed:
            return
        peer.last_sent = time.monotonic()
        if peer.outbox or not self._try(peer, data):
            self._keep(peer, data)
        if not self._poke_due:
            self._poke_due = True
            self._loop.call_soon(self._poke)

    @contextmanager
    def many(self) -> Iterator[None]:
        """What is sent inside needs no turn of the loop afterwards."""
        self._poke_due = True
        try:
            yield
        finally:
            self._poke()

    def _on_event(self, _: list[zmq.Frame]) -> None:
        if not self._disconnect_due:
            self._disconnect_due = True
            for seconds in _DISCONNECT_SECONDS:
                self._loop.call_later(seconds, self._tell_disconnect)

    def _tell_disconnect(self) -> None:
        self._disconnect_due = False
        if not self._socket.closed:
            self._on_disconnect()

    def _try(self, peer: Peer, data: bytes) -> bool:
        try:
            self._socket.send(peer.routing_id, _NOW_WITH_MORE)
            self._socket.send(data, _NOW)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lose(peer)
        return True

    def _lose(self, peer: Peer) -> None:
        if not peer.gone:
            peer.gone = True
            peer.outbox.clear()
            self._blocked.discard(peer)
            self._inbox.forget(peer.routing_id)
            # not now: whoever sends is in the middle of something
            self._loop.call_soon(self._on_gone, peer)

    def _keep(self, peer: Peer, data: bytes) -> None:
        if peer.gone:
            return
        if not peer.outbox:
            peer.blocked_since = time.monotonic()
            peer.outbox_bytes = 0
        peer.outbox.append(data)
        peer.outbox_bytes += len(data)
        self._blocked.add(peer)
        if peer.outbox_bytes > MAX_OUTBOX_BYTES:
            self._cut(peer)
        self._retry_soon()

    def _retry_soon(self) -> None:
        if self._blocked and not self._retry_due:
            self._retry_due = True
            self._loop.call_later(_RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retry_due = False
        if self._socket.closed:
            return
        for peer in list(self._blocked):
            while peer.outbox and self._try(peer, peer.outbox[0]) and not peer.gone:
                peer.outbox_bytes -= len(peer.outbox.popleft())
                peer.blocked_since = time.monotonic()
            if not peer.outbox:
                self._blocked.discard(peer)
            elif time.monotonic() - peer.blocked_since > self._patience:
                self._cut(peer)
        self._retry_soon()
        self._poke()

    def _cut(self, peer: Peer) -> None:
        """Give up on a peer that does not read; one last message says so if it ever does."""
        peer.outbox.clear()
        self._lose(peer)
        reason = "The client did not read for too long, so the worker dropped it."
        data = protocol.encode(protocol.Goodbye(code=SlowConsumer.code, message=reason))
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart((peer.routing_id, data), zmq.DONTWAIT)

    def _poke(self) -> None:
        self._poke_due = False
        if self._pump is not None:
            self._pump.poke()

    def _receive(self, frames: list[zmq.Frame]) -> None:
        principal = str(frames[-1].get("User-Id"))
        # one frame each; anything else is as good as garbage
        said = frames[1] if len(frames) == 2 else zmq.Frame(b"")
        self._inbox.put(Letter.of(frames[0].bytes, principal, said))

    def _open(self, letter: Letter) -> None:
        if not self._socket.closed:
            self._on_message(letter.routing_id, letter.principal, letter.data)


def _server_socket(context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_publickey = keys.server_public.encode()
    socket.curve_secretkey = keys.server_secret.encode()
    socket.zap_domain = b"llmkernel"
    socket.maxmsgsize = protocol.MAX_WIRE_BYTES
    socket.handshake_ivl = HANDSHAKE_MS
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
    socket.router_mandatory = True
    socket.router_handover = False
    socket.sndhwm = socket.rcvhwm = HIGH_WATER_MARK
    socket.backlog = BACKLOG
    socket.linger = LINGER_MS
    return socket
