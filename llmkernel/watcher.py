"""A synchronous look at one worker: its hello, its progress, its state, its status.

The launcher uses it while a worker loads, before there is anything to generate
with; everything else goes through the link.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import zmq

from llmkernel import protocol
from llmkernel._version import __version__
from llmkernel.connection import Connection
from llmkernel.errors import WorkerUnresponsive


class Watcher:
    """A connection that has said Hello and Watch. Use it in a `with` statement."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.MAXMSGSIZE, protocol.MAX_MESSAGE_BYTES)
        self._socket.curve_serverkey = connection.server_public_key.encode()
        self._socket.curve_publickey = connection.client_public_key.encode()
        self._socket.curve_secretkey = connection.client_secret_key.encode()
        self._socket.connect(connection.endpoint)
        self.send(
            protocol.Hello(
                protocol=protocol.PROTOCOL_VERSION, package=__version__, client="launcher"
            )
        )
        self.send(protocol.Watch())

    def send(self, message: protocol.ClientMessage) -> None:
        """Queue a message; it leaves when the connection is up."""
        self._socket.send(protocol.encode(message))

    def receive(self, seconds: float) -> protocol.WorkerMessage | None:
        """The next message, or None if none comes in time.

        Raises InvalidRequest for one that is none of the protocol's.
        """
        if not self._socket.poll(round(seconds * 1000)):
            return None
        return protocol.decode_worker(self._socket.recv())

    def status(self, seconds: float) -> protocol.StatusReport:
        """Ask for the worker's status. Raises WorkerUnresponsive if it does not come in time."""
        self.send(protocol.GetStatus(id=1))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if isinstance(message, protocol.StatusReport):
                return message
        name = self.connection.name
        raise WorkerUnresponsive(
            f"The worker {name!r} does not answer. "
            f"If it stays so, end it with: llmkernel stop --kill {name}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)
