"""The worker's side of the wire: hello, dispatch, states, status.

`Front` lives on one asyncio loop. What is marked "any thread" hops to that loop by
itself; the engine hands over one list of events a step through `on_events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable

import msgspec
import psutil

from llmkernel import protocol
from llmkernel._version import __version__
from llmkernel.config import WorkerConfig
from llmkernel.connection import Keys
from llmkernel.errors import (
    Draining,
    InvalidRequest,
    LLMKernelError,
    NotReady,
    ProtocolMismatch,
)
from llmkernel.worker.desk import Desk
from llmkernel.worker.handover import Handover
from llmkernel.worker.peers import Exchange, Peer
from llmkernel.worker.sequence import EngineEvent
from llmkernel.worker.stream import EngineLike
from llmkernel.worker.tally import Tally
from llmkernel.worker.text import Tokenizer
from llmkernel.worker.text_desk import TextDesk
from llmkernel.worker.text_threads import TextThreads

PATIENCE = 30.0
"""Seconds that a client may take nothing before it is cut."""
PING_SECONDS = 0.4
LOOK_SECONDS = 5.0
"""How often a client without work is looked for."""
_TICK_SECONDS = 0.2
_log = logging.getLogger(__name__)


class _Head(msgspec.Struct):
    """What can be read of a message that is otherwise wrong."""

    type: str
    id: int


class Front:
    """One encrypted socket and everybody who is connected to it.

    `on_stop(drain)` is called on the loop when a client asks the worker to end.
    """

    def __init__(
        self,
        keys: Keys,
        config: WorkerConfig,
        instance: str,
        *,
        on_stop: Callable[[bool], None],
        patience: float = PATIENCE,
    ) -> None:
        self._config = config
        self._instance = instance
        self._on_stop = on_stop
        self._patience = patience
        self._exchange = Exchange(
            keys,
            on_message=self._on_message,
            on_gone=self._on_gone,
            on_disconnect=self._look,
            patience=patience,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()
        self._threads = TextThreads()
        self._started = self._last_work = time.monotonic()
        self._peers: dict[bytes, Peer] = {}
        self._state: protocol.State = "loading"
        self._why_not: LLMKernelError = NotReady("The model is still loading.")
        self._progress: protocol.Progress | None = None
        self._info: protocol.ModelInfo | None = None
        self._desk: Desk | None = None
        self._texts: TextDesk | None = None
        self._device_bytes: Callable[[], int] = lambda: 0
        self.malformed = Tally("a message that is none of the protocol's was ignored")

    # Life ----------------------------------------------------------------------------

    def bind(self) -> str:
        """Bind the socket and return its endpoint. Nothing is answered before `run`."""
        return self._exchange.bind(self._config)

    async def run(self) -> None:
        """Serve until `close` or cancellation; then say goodbye."""
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(self._loop, self._deliver)
        self._exchange.start(self._loop)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            while not closed.done():
                await asyncio.wait((closed,), timeout=_TICK_SECONDS)
                self._tick()
        finally:
            closed.cancel()
            self._shut()

    def close(self) -> None:
        """Make `run` return. What it still has to say is sent for a second at most. Any thread."""
        self._soon(self._closed.set)

    def _shut(self) -> None:
        for peer in self._peers.values():
            self._exchange.send(
                peer, protocol.Goodbye(code=Draining.code, message="The worker is leaving.")
            )
        self._peers.clear()
        self._handover.close()
        self._threads.close()
        self._exchange.close()

    def _tick(self) -> None:
        now = time.monotonic()
        if self.busy:
            self._last_work = now
        if self._desk is not None:
            self._desk.cut_slow(now)
        for peer in list(self._peers.values()):
            silence = now - peer.last_sent
            if silence > (PING_SECONDS if peer.requests else LOOK_SECONDS):
                self._exchange.send(peer, protocol.Ping())

    def _look(self) -> None:
        """Find out who is still there: a ping to one who is not fails at once."""
        for peer in list(self._peers.values()):
            self._exchange.send(peer, protocol.Ping())

    def _soon(self, action: Callable[[], None]) -> None:
        """Do it on the loop: now if we are there, or before it runs."""
        if self._loop is None or self._loop is _running_loop():
            action()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is served
                self._loop.call_soon_threadsafe(action)

    # States --------------------------------------------------------------------------

    def progress(self, progress: protocol.Progress) -> None:
        """Relay how far loading is to everybody who watches. Any thread."""
        self._soon(lambda: self._show(progress))

    def set_ready(
        self,
        engine: EngineLike,
        tokenizer: Tokenizer,
        info: protocol.ModelInfo,
        device_bytes: Callable[[], int] | None = None,
    ) -> None:
        """The model is loaded: take requests from now on. Any thread, once `run` is running.

        `device_bytes` says what is allocated on the accelerator, for the status.
        """

        def open_desk() -> None:
            send = self._exchange.send
            self._desk = Desk(
                engine,
                tokenizer,
                info,
                threads=self._threads,
                queue=self._config.queue,
                patience=self._patience,
                send=send,
            )
            self._texts = TextDesk(tokenizer, info, threads=self._threads, send=send)
            self._info = info
            self._device_bytes = device_bytes or self._device_bytes
            self._last_work = time.monotonic()
            if self._state == "loading":
                self._become("ready")

        self._soon(open_desk)

    def set_failed(self, error: LLMKernelError) -> None:
        """Loading or the engine failed: everything in flight and to come ends with `error`. Any thread."""
        self._soon(lambda: self._fail(error))

    def begin_drain(self) -> None:
        """Refuse new requests at once; those in flight go on. Any thread."""
        self._soon(self._drain)

    def on_events(self, events: list[EngineEvent]) -> None:
        """Deliver the events of one step; waits while the loop is many steps behind. Any thread."""
        self._handover.put(events)

    @property
    def refused(self) -> Tally:
        """Connections with a key that is not on the list."""
        return self._exchange.refused

    @property
    def busy(self) -> bool:
        """Whether any request is in flight."""
        desks = (self._desk, self._texts)
        return any(desk is not None and desk.busy for desk in desks)

    def idle_seconds(self) -> float:
        """Seconds since there was work or the model became ready; 0 while there is work."""
        return 0.0 if self.busy else time.monotonic() - self._last_work

    def _show(self, progress: protocol.Progress) -> None:
        self._progress = progress
        self._tell_watchers(progress)

    def _become(self, state: protocol.State, error: LLMKernelError | None = None) -> None:
        self._state = state
        self._tell_watchers(_state_change(state, error))

    def _tell_watchers(self, message: protocol.WorkerMessage) -> None:
        for peer in list(self._peers.values()):
            if peer.watching:
                self._exchange.send(peer, message)

    def _fail(self, error: LLMKernelError) -> None:
        self._why_not = error
        if self._desk is not None:
            self._desk.refuse_all(error)
        self._become("failed", error)

    def _drain(self) -> None:
        if self._state in ("loading", "ready"):
            self._why_not = Draining("The worker is stopping and takes no new requests.")
            self._become("draining")

    def _deliver(self, events: list[EngineEvent]) -> None:
        if self._desk is not None:
            with self._exchange.many():
                self._desk.deliver(events)
            self._last_work = time.monotonic()

    # Messages --------------------------------------------------------------------------

    def _on_message(self, routing_id: bytes, principal: str, data: bytes) -> None:
        try:
            message = protocol.decode_client(data)
        except InvalidRequest as error:
            self._on_malformed(self._peers.get(routing_id), data, error)
            return
        peer = self._peers.get(routing_id)
        if isinstance(message, protocol.Hello):
            self._on_hello(routing_id, principal, message)
        elif peer is None or peer.principal != principal:
            self.malformed.add()  # hello first, or nothing
        else:
            self._on_known(peer, message, len(data))

    def _on_malformed(self, peer: Peer | None, data: bytes, error: InvalidRequest) -> None:
        """Answer a request that can be told apart; everything else is only counted."""
        self.malformed.add()
        if peer is None:
            return
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            head = msgspec.msgpack.decode(data, type=_Head)
            if head.type in ("submit", "tokenize", "detokenize"):
                self._refuse(peer, head.id, error)

    def _on_hello(self, routing_id: bytes, principal: str, hello: protocol.Hello) -> None:
        old = self._peers.pop(routing_id, None)
        if old is not None:
            self._on_gone(old)
        peer = Peer(routing_id, principal)
        ours, theirs = protocol.PROTOCOL_VERSION, hello.protocol
        if theirs[0] != ours[0]:
            message = (
                f"This worker speaks protocol {ours[0]}.{ours[1]} (llmkernel {__version__}), "
                f"the client {theirs[0]}.{theirs[1]}."
            )
            self._exchange.send(peer, protocol.Goodbye(code=ProtocolMismatch.code, message=message))
            return
        self._peers[routing_id] = peer
        self._exchange.send(
            peer,
            protocol.Welcome(
                protocol=protocol.PROTOCOL_VERSION,
                package=__version__,
                instance=self._instance,
                state=self._state,
            ),
        )

    def _on_known(self, peer: Peer, message: protocol.ClientMessage, size: int) -> None:
        match message:
            case protocol.Submit() | protocol.Tokenize() | protocol.Detokenize():
                self._on_request(peer, message, size)
            case protocol.Cancel(id=request_id):
                if self._desk is not None:
                    self._desk.cancel(peer, request_id)
            case protocol.Credit(id=request_id, tokens=tokens):
                if self._desk is not None:
                    self._desk.credit(peer, request_id, tokens)
            case protocol.GetStatus():
                self._exchange.send(peer, self._status(message))
            case protocol.Watch():
                self._on_watch(peer)
            case protocol.Stop(id=request_id, drain=drain):
                self._exchange.send(peer, protocol.Stopping(id=request_id))
                self._on_stop(drain)

    def _on_request(
        self,
        peer: Peer,
        message: protocol.Submit | protocol.Tokenize | protocol.Detokenize,
        size: int,
    ) -> None:
        if self._desk is None or self._texts is None or self._state != "ready":
            self._refuse(peer, message.id, self._why_not)
            return
        if isinstance(message, protocol.Submit) and message.id in peer.requests:
            why = f"A request with id {message.id} is in flight already."
            self._refuse(peer, message.id, InvalidRequest(why, duplicate=True))
            return
        try:
            if isinstance(message, protocol.Submit):
                self._desk.submit(peer, message, size)
            else:
                self._texts.ask(peer, message, size)
            self._last_work = time.monotonic()
        except LLMKernelError as error:
            self._refuse(peer, message.id, error)

    def _refuse(self, peer: Peer, request_id: int, error: LLMKernelError) -> None:
        refusal = protocol.Refused(id=request_id, **protocol.wire_error(error))
        self._exchange.send(peer, refusal)

    def _on_watch(self, peer: Peer) -> None:
        peer.watching = True
        error = self._why_not if self._state == "failed" else None
        self._exchange.send(peer, _state_change(self._state, error))
        if self._progress is not None and self._state == "loading":
            self._exchange.send(peer, self._progress)

    def _on_gone(self, peer: Peer) -> None:
        peer.gone = True
        if self._peers.get(peer.routing_id) is peer:
            del self._peers[peer.routing_id]
        if self._desk is not None:
            self._desk.drop(peer)
        if self._texts is not None:
            self._texts.drop(peer)

    def _status(self, question: protocol.GetStatus) -> protocol.StatusReport:
        return protocol.StatusReport(
            id=question.id,
            state=self._state,
            name=self._config.name,
            instance=self._instance,
            pid=os.getpid(),
            uptime=time.monotonic() - self._started,
            package=__version__,
            model=self._info,
            load=self._desk.load() if self._desk is not None else protocol.Load(),
            progress=self._progress if self._state == "loading" else None,
            clients=len(self._peers),
            rss_bytes=psutil.Process().memory_info().rss,
            device_bytes=self._device_bytes(),
            steps=self._desk.steps() if question.steps and self._desk is not None else None,
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _state_change(
    state: protocol.State, error: LLMKernelError | None = None
) -> protocol.StateChange:
    return protocol.StateChange(state=state, **(protocol.wire_error(error) if error else {}))
