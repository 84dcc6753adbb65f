"""The worker's side of the wire: sockets, hello, admission and the way of events to their clients.

`Front` lives on one asyncio loop. Everything marked "any thread" hops to that loop by
itself; the engine hands over one list of events a step through `on_events`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmkernel import protocol
from llmkernel.config import WorkerConfig
from llmkernel.connection import Keys
from llmkernel.errors import LLMKernelError
from llmkernel.worker.sequence import EngineEvent
from llmkernel.worker.text import Tokenizer


class Front:
    """One encrypted ROUTER socket and everybody who is connected to it.

    `on_stop(drain)` is called on the loop when a client asks the worker to end.
    """

    def __init__(
        self,
        config: WorkerConfig,
        *,
        instance: str,
        keys: Keys,
        on_stop: Callable[[bool], None],
    ) -> None:
        raise NotImplementedError

    def bind(self) -> str:
        """Bind the socket and return its endpoint. Nothing is answered before `run`."""
        raise NotImplementedError

    async def run(self) -> None:
        """Serve until `close`; then say goodbye, flush for a bounded time and return."""
        raise NotImplementedError

    def progress(self, progress: protocol.Progress) -> None:
        """Relay how far loading is to everybody who watches. Any thread."""
        raise NotImplementedError

    def set_ready(
        self,
        engine: Any,
        tokenizer: Tokenizer,
        info: protocol.ModelInfo,
        device_bytes: Callable[[], int] | None = None,
    ) -> None:
        """The model is loaded: take requests from now on. Any thread.

        `device_bytes` says what is allocated on the accelerator, for the status.
        """
        raise NotImplementedError

    def set_failed(self, error: LLMKernelError) -> None:
        """Loading or the engine failed: tell watchers, refuse requests with `error`. Any thread."""
        raise NotImplementedError

    def begin_drain(self) -> None:
        """Refuse new requests at once; those in flight go on. Any thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Make `run` return. Any thread."""
        raise NotImplementedError

    def on_events(self, events: Sequence[EngineEvent]) -> None:
        """Deliver the events of one step. For the engine's thread."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether any request is in flight."""
        raise NotImplementedError

    def idle_seconds(self) -> float:
        """Seconds since there was work; 0 while there is."""
        raise NotImplementedError
