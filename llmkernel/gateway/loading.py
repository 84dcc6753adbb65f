"""Starting workers from the gateway: each model once, however many ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from llmkernel import launcher
from llmkernel.config import WorkerConfig
from llmkernel.connection import Connection
from llmkernel.errors import Draining, LLMKernelError
from llmkernel.protocol import Progress

OnProgress = Callable[[Progress], None]
OnStarted = Callable[[Connection], None]


class Loading:
    """One worker on its way up; `progress` is the last that was heard of it."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.progress: Progress | None = None
        self.listeners: list[OnProgress] = []
        self.given_up = False
        self.done: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        # whoever asked may be gone when it fails; that is no news for the log
        self.done.add_done_callback(lambda future: future.cancelled() or future.exception())

    def tell(self, progress: Progress) -> None:
        """Pass on how far it is."""
        self.progress = progress
        for listener in list(self.listeners):
            listener(progress)


class Loader:
    """Starts workers in threads. A request that goes away does not take a load with it.

    `on_started` is called for each worker that was started here, not for one that ran already.
    """

    def __init__(self, settings: dict[str, Any], on_started: OnStarted) -> None:
        self._settings = settings
        self._on_started = on_started
        self.loads: dict[str, Loading] = {}
        """Loads that run, by the name of the worker."""
        self.failed: dict[str, LLMKernelError] = {}
        """Why a model's last load failed, until one succeeds."""
        self._tasks: set[asyncio.Task[None]] = set()

    def config(self, model: str, **settings: Any) -> WorkerConfig:
        """The configuration that `model` is started with. Raises InvalidRequest."""
        return WorkerConfig.build(**{**self._settings, **settings, "model": model})

    async def load(self, config: WorkerConfig, on_progress: OnProgress | None = None) -> Connection:
        """Start a worker, or join whoever starts it already. Raises StartFailed and below."""
        loading = self.loads.get(config.name)
        if loading is None:
            loading = self.loads[config.name] = Loading(config)
            task = asyncio.create_task(self._run(loading))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if on_progress is not None:
            loading.listeners.append(on_progress)
        try:
            return await asyncio.shield(loading.done)
        finally:
            if on_progress is not None:
                loading.listeners.remove(on_progress)

    def is_loading(self, name: str, model: str) -> bool:
        """Whether a worker of this name is on its way up here, with this model."""
        loading = self.loads.get(name)
        return loading is not None and loading.config.model == model

    async def settled(self, model: str) -> bool:
        """Wait for the loads of a model, or of a worker's name, however they end; were there any?"""
        loads = [
            each for each in self.loads.values() if model in (each.config.name, each.config.model)
        ]
        if loads:
            await asyncio.wait({each.done for each in loads})
        return bool(loads)

    async def close(self) -> None:
        """Give up what loads."""
        for loading in self.loads.values():
            loading.given_up = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)

    async def _run(self, loading: Loading) -> None:
        loop = asyncio.get_running_loop()

        def relay(progress: Progress) -> None:
            if loading.given_up:  # raised in the launcher, which ends the worker it has started
                raise Draining("The gateway is stopping.")
            loop.call_soon_threadsafe(loading.tell, progress)

        name = loading.config.name
        try:
            connection, started = await asyncio.to_thread(
                launcher.begin, loading.config, on_progress=relay
            )
            if started:
                self._on_started(connection)
        except LLMKernelError as error:
            self.failed[loading.config.model] = error
            loading.done.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of any end
            loading.done.set_exception(error)
        else:
            self.failed.pop(loading.config.model, None)
            loading.done.set_result(connection)
        finally:
            self.loads.pop(name, None)
