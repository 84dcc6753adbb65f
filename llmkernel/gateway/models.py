"""Which worker answers a request: by model, by load, loaded on demand, let go when idle."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from llmkernel import connection as files
from llmkernel.client.background import Here
from llmkernel.connection import Connection
from llmkernel.errors import (
    EngineDied,
    InvalidRequest,
    LLMKernelError,
    NotReady,
    WorkerNotFound,
)
from llmkernel.gateway.asking import ask, until_ready
from llmkernel.gateway.loadable import Loadable
from llmkernel.gateway.loading import Loader, OnProgress
from llmkernel.gateway.lost import Lost, left_behind
from llmkernel.gateway.record import Record
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.settings import Settings
from llmkernel.gateway.unknown import did_you_mean, shown, unknown_model, unknown_worker

ANY_MODEL = frozenset({"", "tgi", "dummy", "default"})
"""What clients send where they have no model in mind: TGI's own name, huggingface_hub's."""
POLL_SECONDS = 1.0


class Models:
    """All workers that the gateway serves. Lives on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.loader = Loader(settings.load_settings, self._started)
        self.replicas: dict[str, Replica] = {}
        """By the worker's name."""
        self.lost = Lost()
        self.loadable = Loadable(settings.allow_models)
        self._home: Here | None = None
        self._order = itertools.count()
        self._own: set[str] = set()
        """Instances of the workers that the gateway started: another may take over the name."""
        self._poller: asyncio.Task[None] | None = None
        self._asking: dict[Replica, asyncio.Task[None]] = {}
        self._stopping: dict[Replica, asyncio.Task[None]] = {}

    # Life ----------------------------------------------------------------------

    async def start(self, models: tuple[str, ...] = (), *, fallback: str | None = None) -> None:
        """Look for workers; start those of `models`, or `fallback` where none runs."""
        await self.refresh()
        for name in self._settings.workers:
            if name not in self.replicas:
                raise await asyncio.to_thread(unknown_worker, name)
        for model in models:
            await self.load(model)
        if not self.replicas and fallback is not None:
            await self.load(fallback)
        self._poller = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Let go of every worker; none is stopped."""
        if self._poller is not None:
            self._poller.cancel()
        for task in (*self._asking.values(), *self._stopping.values()):
            task.cancel()
        await self.loader.close()
        for replica in self.replicas.values():
            replica.close()
        self.replicas.clear()
        if self._home is not None:
            await self._home.close()
            self._home = None

    def _place(self) -> Here:
        """Where the connections live: here, since a thread of their own costs two hops a token."""
        self._home = self._home or Here()
        return self._home

    async def refresh(self) -> None:
        """See which workers run now, and ask each how it is."""
        await self._look()
        await asyncio.gather(*(ask(replica) for replica in self.replicas.values()))

    async def _look(self) -> None:
        """See which workers run now, by their files."""
        doubtful = self.lost.doubtful
        known = [*(replica.connection for replica in self.replicas.values()), *doubtful]
        running, left = await asyncio.to_thread(_there, known)
        for connection in running.values():
            if self._served(connection):
                self._see(connection)
        for replica in list(self.replicas.values()):
            now = running.get(replica.name)
            if now is None or now.instance != replica.instance:
                self._miss(replica, left)
        for connection in doubtful:
            if connection.instance not in left:
                self.lost.forget(connection.name)

    def _miss(self, replica: Replica, left: set[str]) -> None:
        """Let go of a worker that does not run any more."""
        was_ready = replica.report is not None and replica.report.state == "ready"
        on_purpose = replica.leaving or replica.instance not in left
        if replica.broken or (was_ready and not on_purpose):
            self.lost.add(replica.connection, certain=replica.broken)
        self._forget(replica)

    def _served(self, connection: Connection) -> bool:
        wanted = self._settings.workers
        return not wanted or connection.name in wanted or connection.instance in self._own

    def _started(self, connection: Connection) -> None:
        """It is the gateway's own, also where it was seen while it loaded."""
        self._own.add(connection.instance)
        known = self.replicas.get(connection.name)
        if known is not None and known.instance == connection.instance:
            known.keep = self._settings.unload_after

    def _forget(self, replica: Replica) -> None:
        """It does not run any more."""
        if self.replicas.get(replica.name) is replica:
            del self.replicas[replica.name]
        self._own.discard(replica.instance)
        replica.end()

    def _see(self, connection: Connection) -> Replica:
        known = self.replicas.get(connection.name)
        if known is not None and known.instance == connection.instance:
            return known
        if known is not None:
            self._forget(known)
        self.lost.forget(connection.name)
        self.loadable.runs(connection.model)
        order = known.order if known is not None else next(self._order)
        replica = self.replicas[connection.name] = Replica(connection, order, self._place())
        if self._own_or_allowed(replica):
            replica.keep = self._settings.unload_after
        return replica

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # a fault of the disk may pass; the next look is a second away
            with contextlib.suppress(LLMKernelError, OSError):
                await self._look()
            self._ask_each()

    def _ask_each(self) -> None:
        """Ask how they are, without waiting: one that is silent holds up no other's report."""
        for replica in self.replicas.values():
            if replica not in self._asking:
                task = self._asking[replica] = asyncio.create_task(ask(replica))
                task.add_done_callback(partial(self._asked, replica))

    def _asked(self, replica: Replica, task: asyncio.Task[None]) -> None:
        del self._asking[replica]
        if not task.cancelled() and self.replicas.get(replica.name) is replica:
            self._let_go(replica)

    # Finding -------------------------------------------------------------------

    def serving(self, model: str | None) -> list[Replica]:
        """The replicas that a `model` field means, best choice first; empty where none runs."""
        asked = model or ""
        present = [replica for replica in self.replicas.values() if not replica.leaving]
        found = [each for each in present if asked in (each.name, each.model)]
        if not found and asked in ANY_MODEL and present:
            first = min(present, key=lambda replica: (not replica.ready, replica.order))
            found = [each for each in present if each.model == first.model]
        return sorted(found, key=_by_readiness)

    @property
    def up(self) -> bool:
        """Whether some model takes requests, or is or would be loaded for one."""
        ready = any(replica.ready for replica in self.replicas.values())
        loads = bool(self.loader.loads)
        return ready or loads or any(model not in self.loader.failed for model in self.loadable)

    def names(self) -> list[str]:
        """Models that a request may name, those that would be loaded for it included."""
        running = [replica.model for replica in sorted(self.replicas.values(), key=_by_order)]
        return list(dict.fromkeys([*running, *self.loadable]))

    @asynccontextmanager
    async def lease(
        self, model: str | None, record: Record | None = None
    ) -> AsyncIterator[Replica]:
        """A ready worker for a `model` field, which is not stopped for idleness meanwhile.

        None, "" and the names of ANY_MODEL mean the first worker's model. A model of the
        allow-list is loaded first. Raises WorkerNotFound for one that does not run,
        NotReady for one that still loads, Unavailable for one that died, StartFailed where
        loading fails.
        """
        replica = await self._find(model)
        if record is not None:
            record.model, record.worker = replica.model, replica.name
            record.asked = time.monotonic()
        with replica.hold():
            try:
                yield replica
            except EngineDied:
                replica.broken = True
                raise
            except WorkerNotFound:  # it was there a moment ago
                await self._look()
                raise self.lost.error(replica.name) or WorkerNotFound(
                    "The worker of the request was stopped.", field="model"
                ) from None

    async def _find(self, model: str | None) -> Replica:
        asked: set[Replica] = set()
        for attempt in range(2):
            found = [replica for replica in self.serving(model) if replica.alive]
            if found and not found[0].ready:
                await until_ready([each for each in found if each not in asked])
                asked.update(found)
                found.sort(key=_by_readiness)
            if found and found[0].ready:
                return found[0]
            if not attempt:
                await self._look()
        return await (self._loaded(found) if found else self._load_allowed(model or ""))

    async def _loaded(self, found: list[Replica]) -> Replica:
        """One of these, none of which is ready: it is waited for where the gateway loads it."""
        for replica in found:
            if self.loader.is_loading(replica.name, replica.model):
                return await self.load(replica.model)
        why = "does not answer" if found[0].silent else "does not take requests yet"
        raise NotReady(f"The worker {found[0].name!r} {why}.")

    async def _load_allowed(self, model: str) -> Replica:
        first = next(iter(self.loadable), None) if model in ANY_MODEL else None
        wanted = first or self.loadable.find(model)
        if wanted is None:
            raise self.absent(model)
        return await self.load(wanted)

    def absent(self, model: str) -> LLMKernelError:
        """Why no worker serves a model: it died, or nobody here knows it."""
        default = model in ANY_MODEL and not self.replicas
        died = self.lost.error(None if default else model)
        return died or unknown_model(model, self.names(), self.replicas)

    # Loading and letting go ------------------------------------------------------

    async def load(
        self, model: str, on_progress: OnProgress | None = None, **settings: Any
    ) -> Replica:
        """Start a worker with a model, or find the one that runs. Raises StartFailed and below."""
        config = self.loader.config(model, **settings)
        while True:
            await self._gone(config.name)
            replica = self._see(await self.loader.load(config, on_progress))
            if not replica.leaving:  # as one is that somebody else unloads at once
                with replica.hold():  # an unload from here on waits for whoever loads
                    await replica.ask()
                return replica

    async def load_named(self, model: str) -> Replica:
        """The worker that runs under this name or with this model, else a fresh one."""
        found = [each for each in self.serving(model) if model in (each.name, each.model)]
        return found[0] if found and found[0].ready else await self.load(model)

    def unloaded(self) -> dict[str, str]:
        """Models that a request would have loaded; with why the last load failed where it did."""
        there = {replica.model for replica in self.replicas.values()}
        there |= {loading.config.model for loading in self.loader.loads.values()}
        why = {model: error.message for model, error in self.loader.failed.items()}
        return {model: why.get(model, "") for model in self.loadable if model not in there}

    def allowed(self, model: str) -> str:
        """The id of a model that clients may have loaded, else InvalidRequest."""
        found = model if self.serving(model) else self.loadable.find(model)
        if found is None:
            hint = did_you_mean(model, self.names())
            raise InvalidRequest(
                f"The gateway may not load {shown(model)}.{hint} "
                "What it may load is given to it as --allow-model MODEL.",
                field="model",
            )
        return found

    async def unload(self, model: str) -> None:
        """Stop the workers of a model once their work is done; no error where it does not run.

        They are stopped even if the caller does not wait for it; whoever asks again waits
        for the same end. Raises WorkerNotFound for a model that nobody knows here.
        """
        if await self.loader.settled(model):  # whose it is shows once it has come up
            await self._look()
        found = [each for each in self.replicas.values() if model in (each.name, each.model)]
        if not found and self.loadable.find(model) is None:
            raise unknown_model(model, self.names(), self.replicas)
        if not all(self._own_or_allowed(replica) for replica in found):
            raise InvalidRequest(
                f"The worker of {shown(model)} was not started by this gateway. "
                "End it with `llmkernel stop`.",
                field="model",
            )
        await asyncio.gather(*(asyncio.shield(self._stop(replica)) for replica in found))

    def keep(self, model: str, seconds: float | None) -> None:
        """Let the workers of a model go after so many seconds without work; None is never.

        Only workers that the gateway started, or may start, are ever let go.
        """
        for replica in self.serving(model):
            if self._own_or_allowed(replica):
                replica.keep = seconds

    def _own_or_allowed(self, replica: Replica) -> bool:
        return replica.instance in self._own or replica.model in self._settings.allow_models

    def _let_go(self, replica: Replica) -> None:
        """Stop one that nobody has used for long, as its report of this moment says."""
        due = replica.keep is not None and replica.idle_seconds >= replica.keep
        if due and replica.ready:
            self._stop(replica)

    def _stop(self, replica: Replica) -> asyncio.Task[None]:
        """No new requests, then the end, in a task of its own: who asks may leave before it."""
        task = self._stopping.get(replica)
        if task is None:
            replica.leaving = True
            self.loadable.release(replica.model)
            replica.gone.clear()
            task = self._stopping[replica] = asyncio.create_task(self._end(replica))
            task.add_done_callback(partial(self._stopped, replica))
        return task

    def _stopped(self, replica: Replica, task: asyncio.Task[None]) -> None:
        del self._stopping[replica]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; that is no news for the log

    async def _end(self, replica: Replica) -> None:
        """What others have in the worker is finished first."""
        try:
            while replica.in_flight:  # who had it loaded may begin after who was there
                await replica.quiet.wait()
            await replica.client.stop()
        except BaseException:
            replica.leaving = False  # it is still there: serve it, and try again later
            self.loadable.runs(replica.model)
            raise
        finally:
            replica.gone.set()
        self._forget(replica)

    async def _gone(self, name: str) -> None:
        """Wait until a worker that is leaving has left."""
        replica = self.replicas.get(name)
        if replica is not None and replica.leaving:
            await replica.gone.wait()


def _there(known: list[Connection]) -> tuple[dict[str, Connection], set[str]]:
    """The workers that run, by name, and which of the `known` ones have their files still."""
    running = {worker.name: worker for worker in files.list_workers()}
    return running, left_behind(known)  # after it: one that leaves removes its file first


def _by_readiness(replica: Replica) -> tuple[bool, tuple[float, int]]:
    return not replica.ready, replica.pressure


def _by_order(replica: Replica) -> int:
    return replica.order
