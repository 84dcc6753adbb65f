"""A front and an engine in this process, for tests that must hold one of them or set its patience."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmkernel import connection as files
from llmkernel._version import __version__
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection, Keys
from llmkernel.processes import own_identity
from llmkernel.worker.assembly import Parts, assemble
from llmkernel.worker.engine import Engine
from llmkernel.worker.front import Front


class Gate:
    """A runner that can be held between two steps."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.open = threading.Event()
        self.open.set()

    def launch(self, batch: Any) -> Any:
        self.open.wait()
        return self._runner.launch(batch)

    def collect(self, launched: Any) -> Any:
        return self._runner.collect(launched)

    def release(self, slot: int) -> None:
        self._runner.release(slot)


@dataclass
class Served:
    """What a test may look at and take hold of."""

    front: Front
    connection: Connection
    keys: Keys
    loop: asyncio.AbstractEventLoop
    parts: Parts
    gate: Gate
    stops: list[bool]
    engine: Engine = field(init=False)

    def ready(self) -> None:
        """Let requests in."""
        self.engine = self.parts._replace(runner=self.gate).engine(
            self.front.on_events, lambda error: None
        )
        self.engine.start()
        self.serve(self.parts.tokenizer)

    def serve(self, tokenizer: Any) -> None:
        """Let requests in, from now on with this tokenizer."""
        self.front.set_ready(self.engine, tokenizer, self.parts.info)
        self.on_loop(lambda: None)  # it is done when this is

    def on_loop(self, work: Any) -> Any:
        """The result of `work()`, called on the front's loop."""

        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@contextlib.contextmanager
def serving(
    model: str = "scripted", *, ready: bool = True, patience: float = 30.0, **settings: Any
) -> Iterator[Served]:
    """A front on a thread of its own with its connection file written, and an engine when ready."""
    config = WorkerConfig.build(model=model, name=settings.pop("name", "inside"), **settings)
    keys, instance, stops = Keys.generate(), str(uuid.uuid4()), []
    loop = asyncio.new_event_loop()
    started = threading.Event()
    made: list[Front] = []

    async def main() -> None:
        front = Front(keys, config, instance, on_stop=stops.append, patience=patience)
        made.append(front)
        endpoints.append(front.bind())
        loop.call_soon(started.set)
        await front.run()

    endpoints: list[str] = []
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    connection = _describe(config, keys, instance, endpoints[0])
    files.write(connection)
    parts = assemble(config, lambda progress: None)
    served = Served(made[0], connection, keys, loop, parts, Gate(parts.runner), stops)
    try:
        if ready:
            served.ready()
        yield served
    finally:
        served.gate.open.set()
        if hasattr(served, "engine"):
            served.engine.stop()
        served.front.close()
        thread.join(10)
        loop.close()
        files.remove(connection)


def _describe(config: WorkerConfig, keys: Keys, instance: str, endpoint: str) -> Connection:
    return Connection(
        name=config.name,
        package=__version__,
        instance=instance,
        host="here",
        process=own_identity(),
        endpoint=endpoint,
        server_public_key=keys.server_public,
        client_public_key=keys.client_public,
        client_secret_key=keys.client_secret,
        model=config.model,
        settings=msgspec.to_builtins(config),
        log="",
    )
