"""A worker from its bound socket to its last moment: the one place that knows all its rooms.

    keys, socket, connection file → load in a thread → engine → ready → … → leave

The socket is there before the model is, so that whoever waits sees how far loading is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from llmkernel import connection as files
from llmkernel import paths, protocol
from llmkernel._version import __version__
from llmkernel.child import Report
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection, Keys
from llmkernel.errors import Draining, EngineDied, LLMKernelError, StartFailed
from llmkernel.lock import NameLock
from llmkernel.processes import own_identity
from llmkernel.worker import lifecycle
from llmkernel.worker.assembly import Parts, assemble
from llmkernel.worker.engine import Engine
from llmkernel.worker.front import Front
from llmkernel.worker.lifecycle import Departure

T = TypeVar("T")

FLUSH_SECONDS = 2.0
"""How long the last messages may take to reach the clients."""
_RELAY_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Service:
    """One worker. `lock` is held on its name; `report` tells the process that started it."""

    def __init__(
        self,
        config: WorkerConfig,
        lock: NameLock,
        report: Callable[[Report], None],
        *,
        foreground: bool,
    ) -> None:
        self._config = config
        self._lock = lock
        self._report = report
        self._foreground = foreground
        self._engine: Engine | None = None
        self._failed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Serve until something ends it; the exit code of the process."""
        self._loop = asyncio.get_running_loop()
        self._departure = Departure()
        lifecycle.heed_signals(self._departure, foreground=self._foreground)
        files.remove_dead(self._config.name)  # another's, since we hold the lock
        files.sweep()
        keys = Keys.generate()
        connection = _describe(self._config, keys)
        self._front = Front(keys, self._config, connection.instance, on_stop=self._on_stop)
        connection = msgspec.structs.replace(connection, endpoint=self._front.bind())
        try:
            files.write(connection)
            await self._live(connection)
        finally:
            files.remove(connection)
        return self._departure.exit_code

    async def _live(self, connection: Connection) -> None:
        front = asyncio.create_task(self._front.run())
        front.add_done_callback(self._ended)
        self._keep(lifecycle.guard_file(connection, self._lock, self._departure))
        self._keep(self._load())
        await self._departure.wait()
        await self._leave()
        self._front.close()
        await asyncio.wait([front], timeout=FLUSH_SECONDS)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the others; if it breaks, the worker does."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("a part of the worker broke", exc_info=error)
        self._break(EngineDied("The worker is broken and leaves."))

    # Loading ---------------------------------------------------------------------

    async def _load(self) -> None:
        try:
            parts = await in_thread(lambda: assemble(self._config, Relay(self._show)))
        except LLMKernelError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - of any library; whoever waits must hear of it
            _log.exception("loading failed")
            self._fail(
                StartFailed(f"The model could not be loaded ({type(error).__name__}: {error}).")
            )
        else:
            if not self._departure.decided:
                lifecycle.settle()
                self._serve(parts)

    def _show(self, progress: protocol.Progress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            self._loop.call_soon_threadsafe(self._front.progress, progress)

    def _fail(self, error: LLMKernelError) -> None:
        _log.error("not started: %s", error.message)
        self._failed = True
        self._report(Report(**protocol.wire_error(error)))
        self._departure.decide(
            "the model was not loaded", drain=0.0, exit_code=lifecycle.EXIT_FAILED_LOAD
        )
        self._front.set_failed(error)

    def _serve(self, parts: Parts) -> None:
        engine = self._engine = parts.engine(self._front.on_events, self._on_death)
        engine.start()
        self._front.set_ready(engine, parts.tokenizer, parts.info, parts.device_bytes)
        self._report(Report(ready=True))
        _log.info("ready: %s", parts.info)
        if self._config.idle_timeout is not None:
            idle = self._front.idle_seconds
            self._keep(lifecycle.guard_idleness(idle, self._config.idle_timeout, self._departure))
        limit = lifecycle.stuck_after(parts.info.device)
        self._keep(lifecycle.guard_steps(engine.step_seconds, limit, self._on_stuck))

    # Leaving ---------------------------------------------------------------------

    def _on_stop(self, drain: bool) -> None:
        """A client sent Stop."""
        self._departure.decide("Stop", drain=lifecycle.DRAIN_SECONDS if drain else 0.0)

    def _on_death(self, error: BaseException) -> None:
        """The engine's loop ended; called in its thread."""
        _log.critical("the engine died", exc_info=error)
        self._loop.call_soon_threadsafe(
            self._break, EngineDied("The engine died; the worker leaves.")
        )

    def _on_stuck(self, seconds: float) -> None:
        self._break(EngineDied(f"One step took {seconds:.0f} s; the worker gives up and leaves."))

    def _break(self, error: EngineDied) -> None:
        self._failed = True
        self._departure.decide(error.message, drain=0.0, exit_code=lifecycle.EXIT_BROKEN)
        self._front.set_failed(error)

    async def _leave(self) -> None:
        if not self._failed:
            self._front.begin_drain()
            if not await self._departure.drained(lambda: self._front.busy):
                _log.warning("time is up: what still runs is cancelled")
        if self._engine is not None:
            await self._stop_engine(self._engine)

    async def _stop_engine(self, engine: Engine) -> None:
        """End what runs as cancelled; if a step does not come back in time, without the engine."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(in_thread(engine.stop), FLUSH_SECONDS)
        await self._flush()
        if self._front.busy:
            self._front.set_failed(Draining("The worker left before this request was done."))

    async def _flush(self) -> None:
        """Let the events of the engine's end become messages."""
        deadline = self._loop.time() + FLUSH_SECONDS
        await asyncio.sleep(0)
        while self._front.busy and self._loop.time() < deadline:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)


class Relay:
    """Passes on the progress of loading, not more often than anybody can look."""

    def __init__(self, show: Callable[[protocol.Progress], None]) -> None:
        self._show = show
        self._stage = ""
        self._next = 0.0

    def __call__(self, progress: protocol.Progress) -> None:
        """Pass on the first and the last of each stage, and some between."""
        now = time.monotonic()
        complete = progress.total and progress.done >= progress.total
        if progress.stage != self._stage or complete or now >= self._next:
            self._stage, self._next = progress.stage, now + _RELAY_SECONDS
            self._show(progress)


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread that never keeps the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised again by the one who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="llmkernel-work", daemon=True).start()
    return await future


def _describe(config: WorkerConfig, keys: Keys) -> Connection:
    return Connection(
        name=config.name,
        package=__version__,
        instance=str(uuid.uuid4()),
        host=socket.gethostname(),
        process=own_identity(),
        endpoint="",
        server_public_key=keys.server_public,
        client_public_key=keys.client_public,
        client_secret_key=keys.client_secret,
        model=config.model,
        settings=msgspec.to_builtins(config),
        log=str(paths.log_path(config.name)),
    )
