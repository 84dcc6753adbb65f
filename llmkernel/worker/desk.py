"""The requests in flight: admission at one end, the engine's events at the other.

A request is `Preparing` while a thread makes tokens of its prompt, then a `Stream`
until its terminal message. Whatever happens to it, it gets exactly one of those.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from llmkernel import protocol
from llmkernel.errors import (
    InvalidRequest,
    LLMKernelError,
    Overloaded,
    SlowConsumer,
    StepFailed,
)
from llmkernel.units import count
from llmkernel.worker import admission
from llmkernel.worker.peers import Peer
from llmkernel.worker.sequence import EngineEvent, Request
from llmkernel.worker.stream import EngineLike, Stream
from llmkernel.worker.text import Tokenizer
from llmkernel.worker.text_threads import TextThreads
from llmkernel.worker.traces import where

MAX_PREPARING_BYTES = 64 * 2**20
"""Prompts that wait for a thread, in all."""
_TOKENIZER_BROKE = "The tokenizer failed on this prompt; the worker's log says how."
_STREAM_IT = "Stream the answer, or ask for fewer tokens, answers or logprobs."
_log = logging.getLogger(__name__)

Send = Callable[[Peer, protocol.WorkerMessage], None]


@dataclass(slots=True, eq=False)
class Preparing:
    """A request whose prompt is not tokens yet. `over` says that its terminal was sent."""

    peer: Peer
    submit: protocol.Submit
    size: int
    arrived: float = field(default_factory=time.monotonic)
    over: bool = False
    work: asyncio.Future[tuple[int, ...]] | None = None


class Desk:
    """Takes requests for one loaded model.

    Everything runs on the front's loop, except that text becomes tokens in threads.
    """

    def __init__(
        self,
        engine: EngineLike,
        tokenizer: Tokenizer,
        info: protocol.ModelInfo,
        *,
        threads: TextThreads,
        queue: int,
        patience: float,
        send: Send,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._info = info
        self._queue = queue
        self._patience = patience
        self._send = send
        self._keys = itertools.count(1)
        self._preparing: set[Preparing] = set()
        self._preparing_bytes = 0
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}
        """Submitted, and not known to have been admitted by the scheduler."""
        self._threads = threads

    @property
    def busy(self) -> bool:
        """Whether any request is in flight."""
        return bool(self._streams or self._preparing)

    def load(self) -> protocol.Load:
        """What the engine is doing now."""
        return self._engine.load()

    def steps(self) -> protocol.StepReport:
        """How the engine's steps went."""
        return self._engine.steps()

    # In ----------------------------------------------------------------------------

    def submit(self, peer: Peer, submit: protocol.Submit, size: int) -> None:
        """Take a request of `size` bytes, or raise why not."""
        admission.check(submit, self._info, self._tokenizer.vocab_size)
        self._check_room(size)
        preparing = Preparing(peer, submit, size)
        peer.requests[submit.id] = preparing
        self._preparing.add(preparing)
        self._preparing_bytes += size
        preparing.work = self._threads.run(
            peer, partial(admission.encode, submit, self._tokenizer, self._info.context_length)
        )
        preparing.work.add_done_callback(partial(self._prepared, preparing))

    def cancel(self, peer: Peer, request_id: int) -> None:
        """End a request; one that is unknown had ended."""
        match peer.requests.get(request_id):
            case Preparing() as preparing:
                self._settle(preparing, protocol.Cancelled(id=request_id))
            case Stream() as stream:
                stream.cancel()

    def credit(self, peer: Peer, request_id: int, tokens: int) -> None:
        """The reader of a stream has room for more."""
        stream = peer.requests.get(request_id)
        if isinstance(stream, Stream):
            stream.grant(tokens)

    def drop(self, peer: Peer) -> None:
        """Its client is gone: end all it had."""
        for request_id in list(peer.requests):
            self.cancel(peer, request_id)

    def refuse_all(self, error: LLMKernelError) -> None:
        """The engine is lost: everything in flight ends with `error`."""
        for preparing in list(self._preparing):
            self._settle(preparing, _refusal(preparing.submit.id, error))
        for stream in list(self._streams.values()):
            self._end(stream, error)

    def _check_room(self, size: int) -> None:
        waiting = len(self._waiting) + len(self._preparing)
        if waiting >= self._queue:
            self._waiting = {k: s for k, s in self._waiting.items() if not s.request.admitted}
            waiting = len(self._waiting) + len(self._preparing)
            if waiting >= self._queue + self._free_rows():
                raise Overloaded(
                    f"The queue is full, with {count(waiting, 'request')} in it.", waiting=waiting
                )
        if self._preparing_bytes + size > MAX_PREPARING_BYTES:
            raise Overloaded("Too many long prompts wait to be tokenised.", waiting=waiting)

    def _free_rows(self) -> int:
        """Rows of the batch that requests which just came will take: they do not count as waiting."""
        taken = sum(s.open for key, s in self._streams.items() if key not in self._waiting)
        return max(0, self._info.max_concurrent - taken)

    def _prepared(self, preparing: Preparing, work: asyncio.Future[tuple[int, ...]]) -> None:
        if work.cancelled() or preparing.over:
            return
        submit = preparing.submit
        try:
            stream = self._open(preparing, work.result())
        except LLMKernelError as error:
            self._settle(preparing, _refusal(submit.id, error))
        except Exception as error:  # noqa: BLE001 - of any tokenizer or template; only this request fails
            _log.error("a prompt could not be tokenised: %s", where(error))
            self._settle(preparing, _refusal(submit.id, LLMKernelError(_TOKENIZER_BROKE)))
        else:
            self._begin(preparing, stream)

    def _open(self, preparing: Preparing, prompt: tuple[int, ...]) -> Stream:
        submit = preparing.submit
        params = admission.engine_params(submit.params)
        admission.check_tokens(submit, prompt)
        most = self._engine.check_fits(len(prompt), params.max_tokens, params.width)
        request = Request(
            key=next(self._keys),
            client=preparing.peer.name,
            prompt=prompt,
            params=params,
            max_tokens=admission.bounded(submit, len(prompt), most),
            salt=_salt(preparing.peer.principal, submit.cache_salt),
            eos_token_ids=self._tokenizer.eos_token_ids,
            seed=random.getrandbits(63) if params.seed is None else params.seed,
            arrived=preparing.arrived,
        )
        return Stream(preparing.peer, submit, request, self._engine, self._tokenizer)

    def _begin(self, preparing: Preparing, stream: Stream) -> None:
        position = len(self._waiting)
        self._forget(preparing)
        stream.peer.requests[stream.id] = stream
        self._streams[stream.request.key] = stream
        self._waiting[stream.request.key] = stream
        prompt_tokens = len(stream.request.prompt)
        self._send(
            stream.peer,
            protocol.Accepted(id=stream.id, prompt_tokens=prompt_tokens, position=position),
        )
        stream.begin()

    # Out ---------------------------------------------------------------------------

    def deliver(self, events: Sequence[EngineEvent]) -> None:
        """Turn the events of one step into at most one Deltas message per client."""
        touched: dict[int, Stream] = {}
        for event in events:
            key = event.request.key
            stream = self._streams.get(key)
            if stream is not None:
                stream.take(event)
                touched[key] = stream
        batches: dict[Peer, list[protocol.StreamDelta]] = {}
        for key, stream in touched.items():
            self._waiting.pop(key, None)
            deltas = self._deltas(stream)
            if deltas:
                batches.setdefault(stream.peer, []).extend(deltas)
        for peer, parts in batches.items():
            self._send(peer, protocol.Deltas(deltas=parts))
        for stream in touched.values():
            if stream.complete:
                self._end(stream)

    def cut_slow(self, now: float) -> None:
        """End the streams whose readers have given no credit for too long."""
        for stream in list(self._streams.values()):
            since = stream.window.empty_since
            if stream.live and since and now - since > self._patience:
                stream.cancel()
                self._end(
                    stream,
                    SlowConsumer(
                        f"The reader took nothing for {self._patience:g} s, so the stream was cut."
                    ),
                )

    def _deltas(self, stream: Stream) -> list[protocol.StreamDelta]:
        try:
            return stream.deltas()
        except Exception as error:  # noqa: BLE001 - of any tokenizer; only this request fails
            _log.error("tokens could not be made text: %s", where(error))
            stream.cancel()
            self._end(stream, StepFailed("The tokenizer failed on the tokens of this answer."))
            return []

    def _end(self, stream: Stream, error: LLMKernelError | None = None) -> None:
        """Send the one terminal message of a stream, unless it has been sent."""
        if self._streams.pop(stream.request.key, None) is None:
            return
        self._waiting.pop(stream.request.key, None)
        del stream.peer.requests[stream.id]
        try:
            self._send(stream.peer, stream.terminal(error))
        except InvalidRequest as too_large:
            failure = protocol.wire_error(InvalidRequest(f"{too_large.message} {_STREAM_IT}"))
            self._send(stream.peer, protocol.Failed(id=stream.id, **failure))

    def _settle(
        self, preparing: Preparing, terminal: protocol.Cancelled | protocol.Refused
    ) -> None:
        self._forget(preparing)
        preparing.over = True
        if preparing.work is not None:
            preparing.work.cancel()
        del preparing.peer.requests[preparing.submit.id]
        self._send(preparing.peer, terminal)

    def _forget(self, preparing: Preparing) -> None:
        self._preparing.discard(preparing)
        self._preparing_bytes -= preparing.size


def _salt(principal: str, wanted: str) -> bytes:
    """A principal's name has no NUL, so no salt makes one look like another."""
    return f"{principal}\0{wanted}".encode()


def _refusal(request_id: int, error: LLMKernelError) -> protocol.Refused:
    return protocol.Refused(id=request_id, **protocol.wire_error(error))
