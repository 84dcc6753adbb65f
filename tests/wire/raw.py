"""A client that sends whatever a test wants, right or wrong, and waits for what comes back."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import zmq

from llmkernel import protocol
from llmkernel.connection import Connection
from llmkernel.params import SamplingParams


class RawClient:
    """A DEALER with the connection's keys. It has said hello, unless told not to."""

    def __init__(self, connection: Connection, *, hello: bool = True, **options: Any) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.curve_serverkey = connection.server_public_key.encode()
        self.socket.curve_publickey = connection.client_public_key.encode()
        self.socket.curve_secretkey = connection.client_secret_key.encode()
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(connection.endpoint)
        self.seen: list[protocol.WorkerMessage] = []
        if hello:
            self.send(protocol.Hello())
            assert isinstance(self.receive(), protocol.Welcome)

    def send(self, message: protocol.ClientMessage | bytes) -> None:
        data = message if isinstance(message, bytes) else protocol.encode(message)
        self.socket.send(data)

    def receive(self, seconds: float = 10.0) -> protocol.WorkerMessage:
        """The next message that is no ping."""
        message = self.listen(seconds)
        assert message is not None, f"nothing came within {seconds} s"
        return message

    def listen(self, seconds: float) -> protocol.WorkerMessage | None:
        """The next message that is no ping, or None."""
        deadline = time.monotonic() + seconds
        while self.socket.poll(max(0, int(1000 * (deadline - time.monotonic())))):
            message = protocol.decode_worker(self.socket.recv())
            if not isinstance(message, protocol.Ping):
                self.seen.append(message)
                return message
        return None

    def submit(self, key: int = 1, prompt: Any = "hello", **fields: Any) -> None:
        """A greedy request; parameters and fields of Submit by name."""
        names = SamplingParams.__struct_fields__
        params = {name: fields.pop(name) for name in list(fields) if name in names}
        params = {"temperature": 0.0, "max_tokens": 8, **params}
        fields.setdefault("stream", True)
        submit = protocol.Submit(id=key, prompt=prompt, params=SamplingParams(**params), **fields)
        self.send(submit)

    def until(self, *kinds: type, seconds: float = 10.0) -> Any:
        """The next message of one of these kinds; the others are in `seen`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = self.listen(deadline - time.monotonic())
            if isinstance(message, kinds):
                return message
        raise AssertionError(f"no {[kind.__name__ for kind in kinds]} within {seconds} s")

    def terminal(self, seconds: float = 10.0) -> Any:
        """The next terminal message."""
        return self.until(*protocol.TERMINAL, seconds=seconds)

    def deltas(self, key: int = 1) -> list[protocol.StreamDelta]:
        """All deltas of one request that were seen."""
        return [
            delta
            for message in self.seen
            if isinstance(message, protocol.Deltas)
            for delta in message.deltas
            if delta.id == key
        ]

    def close(self) -> None:
        self.context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
