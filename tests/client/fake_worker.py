"""Something with a worker's keys and address that says what a test wants it to say."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from llmkernel import connection as files
from llmkernel import protocol
from llmkernel.connection import Connection, Keys
from llmkernel.processes import own_identity


class HangUp(Exception):
    """Raised by a reply: close the connection, after what was said."""


Say = Callable[[protocol.WorkerMessage], None]


@dataclass
class Fake:
    """What came, and where it listens."""

    connection: Connection
    got: list[protocol.ClientMessage] = field(default_factory=list)

    def rewrite(self, **changes: Any) -> None:
        """Change the connection file."""
        files.write(msgspec.structs.replace(self.connection, **changes))


@contextlib.contextmanager
def fake_worker(
    reply: Callable[[protocol.ClientMessage, Say], None],
    *,
    high_water_mark: int = 1000,
    **welcome: Any,
) -> Iterator[Fake]:
    """Answers hello with a Welcome, and calls `reply(message, say)` for everything else.

    So many messages wait here while it replies, the others with whoever sent them.
    """
    keys, instance = Keys.generate(), str(uuid.uuid4())
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.sndhwm = 0  # it drops nothing by accident
    socket.rcvhwm = high_water_mark
    socket.curve_server = True
    socket.curve_publickey = keys.server_public.encode()
    socket.curve_secretkey = keys.server_secret.encode()
    folder = tempfile.TemporaryDirectory(prefix="lk-")
    endpoint = f"ipc://{folder.name}/fake"
    socket.bind(endpoint)
    fake = Fake(
        Connection(
            name="fake",
            package="0",
            instance=instance,
            host="here",
            process=own_identity(),
            endpoint=endpoint,
            server_public_key=keys.server_public,
            client_public_key=keys.client_public,
            client_secret_key=keys.client_secret,
            model="none",
            log="",
        )
    )
    files.write(fake.connection)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if not socket.poll(20):
                continue
            client, data = socket.recv_multipart()
            message = protocol.decode_client(data)
            fake.got.append(message)

            def say(answer: protocol.WorkerMessage, client: bytes = client) -> None:
                socket.send_multipart([client, protocol.encode(answer)])

            if isinstance(message, protocol.Hello):
                say(protocol.Welcome(**{"instance": instance, "state": "ready", **welcome}))
            else:
                try:
                    reply(message, say)
                except HangUp:
                    socket.close(linger=1000)
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        over.set()
        thread.join(5)
        context.destroy(linger=0)
        fake.connection.path.unlink(missing_ok=True)
        folder.cleanup()
