"""A gateway on a free port, in a thread of this process, and a client that has its token."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from llmkernel import connection as files
from llmkernel.client import Client
from llmkernel.gateway.credentials import Token
from llmkernel.gateway.server import Server
from llmkernel.gateway.settings import Limits, Settings

TOKEN = "a token of 32 characters, no less"


class Gate:
    """A running gateway."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.url = server.url
        self.port = server.port
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )
        self._workers: dict[str, Client] = {}

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.http.get(path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.http.post(path, json=body if body is not None else {}, **more)

    def events(self, path: str, body: Any) -> list[Any]:
        """The events of a stream: parsed JSON, or "[DONE]"."""
        with self.http.stream("POST", path, json=body) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data:")]
        texts = [line.removeprefix("data:").strip() for line in lines]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    def status(self, name: str) -> Any:
        """What a worker says of itself, past the gateway."""
        return self.worker(name).status()

    def worker(self, name: str = "scripted") -> Client:
        """A client of a worker, past the gateway."""
        if name not in self._workers:
            self._workers[name] = Client(files.find(name))
        return self._workers[name]

    def close(self) -> None:
        """Let go of every connection."""
        self.http.close()
        for client in self._workers.values():
            client.close()


@contextmanager
def gate(
    models: tuple[str, ...] = (), limits: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Gate]:
    """Start a gateway; stop it when the block ends."""
    chosen = Settings(port=0, limits=Limits(**(limits or {})), **{"drain_seconds": 0.0, **settings})
    ready: threading.Event = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        server = Server(chosen, Token(TOKEN))
        try:
            await server.start(models)
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            found.append(error)
            ready.set()
            return
        found.extend((server, asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="gateway")
    thread.start()
    ready.wait()
    if isinstance(found[0], BaseException):
        thread.join()
        raise found[0]
    server, loop, stop = found
    running = Gate(server, loop)
    try:
        yield running
    finally:
        running.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive(), "the gateway does not stop"


def rest_of(sock: socket.socket) -> bytes:
    """All that comes until the other end is closed."""
    with sock:
        received = b""
        while part := sock.recv(65536):
            received += part
    return received
