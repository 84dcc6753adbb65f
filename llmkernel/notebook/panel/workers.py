"""The workers that a panel can talk to: which run, which one is asked, how it is, starting one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmkernel import connection as files
from llmkernel import launcher
from llmkernel.config import DEMO_MODEL, WorkerConfig
from llmkernel.connection import Connection
from llmkernel.errors import ConnectionProblem, LLMKernelError, StartFailed
from llmkernel.progress import TITLES
from llmkernel.protocol import ModelInfo, Progress, StatusReport

if TYPE_CHECKING:
    from llmkernel.client import Client
    from llmkernel.watcher import Watcher

View = dict[str, Any]
_STATUS_SECONDS = 3.0
_POLL_SECONDS = 0.05


class Workers:
    """The workers of this machine, and the chosen one; methods may be called from any thread.

    `chosen` is a name, or None for the only one that runs.
    """

    def __init__(self, chosen: str | None = None) -> None:
        self._lock = threading.RLock()
        self._clients: dict[str, Client] = {}
        self._chosen = chosen
        self._last: Connection | None = None
        self.report: StatusReport | None = None
        self.missing = ""
        """Why there is no worker to ask, as last seen."""
        self.running: list[View] = []
        """What runs on this machine, as last seen."""
        self.loading: View | None = None
        self._watcher: Watcher | None = None

    @property
    def name(self) -> str | None:
        """The worker that is asked: the chosen one, else the one that was found last."""
        return self._chosen or (self._last.name if self._last else None)

    def choose(self, name: str) -> None:
        """Ask this worker from now on. Raises WorkerNotFound."""
        found = files.find(name)
        with self._lock:
            self._chosen, self._last, self.report, self.missing = found.name, found, None, ""

    def client(self) -> Client:
        """A client of the worker that is asked. Raises WorkerNotFound that says what runs."""
        from llmkernel.client import Client

        found = files.find(self.name)
        with self._lock:
            self._last = found
            if found.name not in self._clients:
                self._clients[found.name] = Client(found)
            return self._clients[found.name]

    def client_when_ready(self, given_up: threading.Event) -> Client | None:
        """The same, after the start that is under way; None where the event is set before."""
        while self.loading is not None and "failed" not in self.loading:
            if given_up.wait(_POLL_SECONDS):
                return None
        return self.client()

    def lost(self, error: LLMKernelError) -> None:
        """An answer broke off: what was known of the worker may not hold any more."""
        if isinstance(error, ConnectionProblem):
            self.report = None

    def look(self) -> None:
        """Ask the worker how it is, if one is there; what it says is in `report`.

        Always in the same thread: it keeps a connection of its own.
        """
        self.running = [{"name": one.name, "model": one.model} for one in files.list_workers()]
        try:
            found = files.find(self.name)
            report = self._watch(found).status(_STATUS_SECONDS)
        except LLMKernelError as error:
            self.stop_looking()
            self.report, self.missing = None, str(error)
            return
        with self._lock:
            self._last, self.report, self.missing = found, report, ""

    def _watch(self, worker: Connection) -> Watcher:
        from llmkernel.watcher import Watcher

        if self._watcher is None or self._watcher.connection.instance != worker.instance:
            self.stop_looking()
            self._watcher = Watcher(worker)
        return self._watcher

    def stop_looking(self) -> None:
        """End the connection of `look`, in its thread."""
        if self._watcher is not None:
            self._watcher.__exit__(None, None, None)
            self._watcher = None

    @property
    def model(self) -> ModelInfo | None:
        """What the worker holds, as last seen."""
        return self.report.model if self.report else None

    def start(self, model: str, on_change: Callable[[], None], **settings: Any) -> None:
        """Start a worker in a thread, or attach to it, and choose it.

        `loading` says how far it is, or why it failed; None after it was cancelled.
        """
        config = WorkerConfig.build(model=model.strip() or DEMO_MODEL, **settings)
        self.loading = {"title": "starting", "model": config.model}
        start = Starting(self, config, on_change)
        threading.Thread(target=start.run, name="llmkernel-panel-start", daemon=True).start()

    def again(self, on_change: Callable[[], None]) -> None:
        """Find the worker again, or start one as the last one was."""
        try:
            self.client()
        except LLMKernelError:
            last = self._last
            settings = dict(last.settings) if last is not None else {}
            model = str(settings.pop("model", DEMO_MODEL))
            self.start(model, on_change, **settings)

    def close(self) -> None:
        """End the connections, not the workers."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def view(self) -> View:
        """The worker that is asked, in figures; `state` is "none" where there is none, `why` says why."""
        name, report = self.name, self.report
        if report is None:
            gone = self._last is not None and not self._last.alive
            state = "gone" if gone else "quiet" if self._last else "none"
            return {"name": name, "state": state} | self._why(state)
        view: View = {"name": report.name, "state": report.state, "memory": _memory(report)}
        view |= {"running": report.load.running, "waiting": report.load.waiting}
        view["rate"] = round(report.load.tokens_per_second)
        return view | (_model_view(report.model) if report.model else {})

    def _why(self, state: str) -> View:
        return {"why": self.missing} if state == "none" and self.missing else {}


class Starting:
    """The start of one worker, told to a panel step by step."""

    def __init__(
        self, workers: Workers, config: WorkerConfig, on_change: Callable[[], None]
    ) -> None:
        self._workers = workers
        self._config = config
        self._on_change = on_change

    def run(self) -> None:
        """Start it; a failure is what `loading` says in the end."""
        workers = self._workers
        try:
            launcher.start(self._config, on_progress=self._progress)
            workers.choose(self._config.name)
            workers.loading = None
        except LLMKernelError as error:
            if workers.loading is not None:  # else a person has cancelled it, and knows
                workers.loading = {"model": self._config.model, "failed": str(error)}
        self._on_change()

    def _progress(self, progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else None
        loading = self._workers.loading
        if loading is None:
            raise StartFailed("The start was cancelled.")
        title = TITLES.get(progress.stage, progress.stage)
        view = {"title": title, "model": self._config.model}
        view["share"] = None if share is None else round(min(1.0, share), 2)  # type: ignore[assignment]
        if view != loading:
            self._workers.loading = view
            self._on_change()


def _memory(report: StatusReport) -> int:
    """Bytes, rounded so that it does not change all the time."""
    return round((report.device_bytes or report.rss_bytes) / 1e7) * 10**7


def _model_view(model: ModelInfo) -> View:
    return {
        "model": model.model,
        "quantization": "" if model.quantization == "none" else model.quantization,
        "dtype": model.dtype,
        "device": model.device,
        "context": model.context_length,
        "limit": model.max_prompt_tokens or max(0, model.context_length - 1),
        "batch": model.max_concurrent,
        "chat": model.has_chat_template,
    }
