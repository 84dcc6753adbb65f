"""The decode loop: plan a step, launch it, deliver what came back.

One thread owns everything here. Other threads leave orders; events leave in one
list per step. With `depth` 1 a step is planned and launched before the tokens of
the one before it are known; with 0 each step is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from llmkernel.errors import (
    DeviceOutOfMemory,
    EngineDied,
    LLMKernelError,
    NumericalError,
    PromptTooLong,
    StepFailed,
)
from llmkernel.protocol import Load
from llmkernel.worker.blocks import BlockPool
from llmkernel.worker.counters import Counters
from llmkernel.worker.scheduler import Scheduler
from llmkernel.worker.sequence import (
    NO_TOKEN,
    EndEvent,
    EngineEvent,
    Request,
    Row,
    Sampled,
    Sequence,
    StepBatch,
    StepResult,
    TokenEvent,
)

_FAILURES_IN_A_ROW = 3
"""Failed steps after which the device, not the requests, is taken to be broken."""
_log = logging.getLogger(__name__)


class Runner(Protocol):
    """What computes a step; see worker/runner.py and worker/scripted.py."""

    def launch(self, batch: StepBatch) -> Any:
        """Enqueue a step and return a handle without waiting."""

    def collect(self, launched: Any) -> StepResult:
        """Wait for a launched step."""

    def release(self, slot: int) -> None:
        """Nobody uses this slot any more."""


class Engine:
    """Continuous batching over a runner.

    `on_events` gets at most one list a step and `on_death` one call if the loop ends by itself, both on the
    engine's thread. All public methods may be called from any thread.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        num_blocks: int,
        block_size: int,
        max_concurrent: int,
        max_batch_tokens: int,
        context_length: int,
        prefix_cache: bool,
        on_events: Callable[[list[EngineEvent]], None],
        on_death: Callable[[BaseException], None],
        depth: int = 0,
    ) -> None:
        self.blocks = BlockPool(num_blocks, block_size, prefix_cache)
        self.scheduler = Scheduler(
            self.blocks,
            max_concurrent=max_concurrent,
            max_batch_tokens=max_batch_tokens,
            on_release=runner.release,
        )
        self._runner = runner
        self._limit = min(context_length, self.blocks.capacity * block_size)
        self._depth = depth
        self._on_events = on_events
        self._on_death = on_death
        self._orders: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._dead = False
        self._launched: deque[tuple[StepBatch, Any]] = deque()
        self._requests: dict[int, Request] = {}
        self._ended: set[tuple[int, int]] = set()
        self._events: list[EngineEvent] = []
        self._failures = 0
        self._count = Counters()
        self._step_began = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # Orders, from any thread ---------------------------------------------------------

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self) -> None:
        """End every sequence as cancelled and wait for the loop to leave."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def submit(self, request: Request) -> None:
        """Take a request; its events follow."""
        self._order(lambda: self._submit(request))

    def cancel(self, key: int) -> None:
        """End what is left of a request as cancelled. An unknown key had ended."""
        self._order(lambda: self._end_request(key, "cancelled"))

    def finish(self, key: int, index: int) -> None:
        """End one sequence as "stop": its text reached a stop string."""
        self._order(lambda: self._finish(key, index))

    def pause(self, key: int) -> None:
        """Do not schedule a request until `resume`; it keeps its blocks while nobody needs them."""
        self._order(lambda: self._set_paused(key, paused=True))

    def resume(self, key: int) -> None:
        """Schedule a paused request again."""
        self._order(lambda: self._set_paused(key, paused=False))

    def check_fits(self, prompt_tokens: int, max_tokens: int | None, width: int = 1) -> int:
        """The tokens that may be generated after a prompt.

        Raises PromptTooLong where the prompt and `max_tokens` (at least one token) do not fit,
        even alone; `width` answers run one after the other if they must.
        """
        del width
        needed = prompt_tokens + (1 if max_tokens is None else max_tokens)
        if needed > self._limit:
            answer = "one token" if max_tokens is None else f"max_tokens {max_tokens}"
            raise PromptTooLong(
                f"The prompt has {prompt_tokens} tokens; with {answer} that is {needed}, "
                f"and this worker has room for {self._limit}.",
                needed=needed,
                limit=self._limit,
            )
        return self._limit - prompt_tokens if max_tokens is None else max_tokens

    def load(self) -> Load:
        """What the engine is doing now."""
        count, scheduler = self._count, self.scheduler
        return Load(
            running=len(scheduler.running),
            waiting=scheduler.waiting,
            free_blocks=self.blocks.free,
            cached_blocks=self.blocks.cached,
            steps=count.steps,
            preemptions=scheduler.preemptions,
            tokens_generated=count.generated,
            prompt_tokens=count.prompt,
            cached_tokens=count.cached,
            tokens_per_second=count.tokens_per_second(),
            requests_finished=count.finished,
            requests_failed=count.failed,
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, running or on its way."""
        return not (self._requests or self._launched or self._orders)

    @property
    def keys(self) -> frozenset[int]:
        """Keys of the requests that have not ended."""
        return frozenset(self._requests)

    def step_seconds(self) -> float:
        """How long the present step has taken so far; 0 between steps."""
        began = self._step_began
        return time.monotonic() - began if began else 0.0

    # The loop ------------------------------------------------------------------------

    def step(self) -> bool:
        """Orders, plan, launch, deliver. False if there was nothing to do."""
        self._take_orders()
        batch = self.scheduler.schedule()
        if batch is not None:
            self._launch(batch)
        due = bool(self._launched) and (batch is None or len(self._launched) > self._depth)
        if due:
            self._deliver(*self._launched.popleft())
        self._publish()
        return due or batch is not None

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self.step():
                    self._wake.wait()
                    self._wake.clear()
            self._drain("cancelled", None)
        except BaseException as error:  # noqa: BLE001 - nobody may wait for a loop that is gone
            _log.exception("the decode loop ended")
            self._die(error)

    def _die(self, error: BaseException) -> None:
        self._dead = True
        died = (
            error
            if isinstance(error, EngineDied)
            else EngineDied("The decode loop broke; the worker leaves.")
        )
        self._drain("error", died)
        self._on_death(error)

    def _drain(self, reason: str, error: LLMKernelError | None) -> None:
        self._take_orders()
        for key in list(self._requests):
            self._end_request(key, reason, error)
        self._launched.clear()
        self._publish()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake.set()
        if self._dead:
            self._drain("error", EngineDied("The decode loop is gone; the worker leaves."))

    def _take_orders(self) -> None:
        while self._orders:
            self._orders.popleft()()

    def _publish(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._on_events(events)

    def _launch(self, batch: StepBatch) -> None:
        self._step_began = time.monotonic()
        try:
            self._launched.append((batch, self._runner.launch(batch)))
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails this step only
            self._step_failed(batch, error)

    def _deliver(self, batch: StepBatch, handle: Any) -> None:
        try:
            result = self._runner.collect(handle)
        except Exception as error:  # noqa: BLE001 - as in _launch
            self._step_failed(batch, error)
            return
        self._failures = 0
        self._step_began = 0.0
        now = time.monotonic()
        rows = zip(batch.rows, result.sampled, result.prompt_logprobs, strict=True)
        for row, sampled, scores in rows:
            row.sequence.in_flight -= row.samples
            if not row.sequence.ended:
                self._deliver_row(row, sampled, scores, now)
        self._count.step_done(now)

    def _deliver_row(
        self, row: Row, sampled: Sampled | None, scores: list[Sampled], now: float
    ) -> None:
        sequence, request = row.sequence, row.sequence.request
        if sequence.index == 0:
            # after a preemption the same positions come again
            request.prompt_logprobs += scores[max(0, len(request.prompt_logprobs) - row.start) :]
        if sampled is not None:
            self._gain(sequence, sampled, now)
        elif request.max_tokens == 0 and row.start + row.count >= sequence.output_start:
            self._end(sequence, "length")
        if not sequence.ended and sequence.slot >= 0:
            self.scheduler.remember(sequence, min(row.start + row.count, sequence.computed))

    def _gain(self, sequence: Sequence, sampled: Sampled, now: float) -> None:
        request = sequence.request
        if sampled.token_id == NO_TOKEN:
            self.blocks.forget(sequence.blocks)
            message = "The model gave no finite number for this request."
            self._end(sequence, "error", error=NumericalError(message))
            return
        request.first_token = request.first_token or now
        sequence.token_ids.append(sampled.token_id)
        self._count.generated += 1
        self._events.append(TokenEvent(request, sequence.index, sampled))
        produced = len(sequence.token_ids) - sequence.output_start
        params, token = request.params, sampled.token_id
        if produced >= params.min_tokens and token in params.stop_token_ids:
            self._end(sequence, "stop", stop_reason=token)
        elif (
            produced >= params.min_tokens
            and not params.ignore_eos
            and token in request.eos_token_ids
        ):
            self._end(sequence, "stop")
        elif produced >= request.max_tokens:
            self._end(sequence, "length")

    # Ends ----------------------------------------------------------------------------

    def _submit(self, request: Request) -> None:
        request.arrived = request.arrived or time.monotonic()
        request.sequences = [
            Sequence(request, index, list(request.prompt), output_start=len(request.prompt))
            for index in range(request.params.width)
        ]
        self._requests[request.key] = request
        self._count.prompt += len(request.prompt)
        self.scheduler.add(request)

    def _end_request(self, key: int, reason: str, error: LLMKernelError | None = None) -> None:
        request = self._requests.get(key)
        for sequence in request.sequences if request else ():
            if not sequence.ended:
                self._end(sequence, reason, error=error)

    def _finish(self, key: int, index: int) -> None:
        request = self._requests.get(key)
        if request is not None and not request.sequences[index].ended:
            self._end(request.sequences[index], "stop")

    def _set_paused(self, key: int, *, paused: bool) -> None:
        request = self._requests.get(key)
        for sequence in request.sequences if request else ():
            sequence.paused = paused

    def _end(
        self,
        sequence: Sequence,
        reason: str,
        *,
        stop_reason: int | None = None,
        error: LLMKernelError | None = None,
    ) -> None:
        self.scheduler.remove(sequence)
        sequence.ended = True
        request = sequence.request
        self._events.append(EndEvent(request, sequence.index, reason, stop_reason, error))
        if all(other.ended for other in request.sequences):
            request.ended = time.monotonic()
            self._count.cached += request.cached_tokens
            self._count.finished += error is None
            self._count.failed += error is not None
            del self._requests[request.key]

    # Failures ------------------------------------------------------------------------

    def _step_failed(self, batch: StepBatch, error: Exception) -> None:
        """Fail the requests of a step; raise EngineDied where going on makes no sense."""
        self._step_began = 0.0
        self._failures += 1
        for row in batch.rows:
            row.sequence.in_flight -= row.samples
        if isinstance(error, EngineDied):
            raise error
        if isinstance(error, DeviceOutOfMemory) and self._retry_smaller(batch):
            return
        _log.error("a step of %d rows failed", len(batch.rows), exc_info=error)
        told = (
            error
            if isinstance(error, LLMKernelError)
            else StepFailed("The step of this request failed.")
        )
        for row in batch.rows:
            if not row.sequence.ended:
                self.blocks.forget(row.sequence.blocks)
                self._end(row.sequence, "error", error=told)
        if self._failures >= _FAILURES_IN_A_ROW:
            message = f"{self._failures} steps in a row failed; the worker leaves."
            raise EngineDied(message) from error

    def _retry_smaller(self, batch: StepBatch) -> bool:
        """Without memory for a decode step: recompute the youngest later and try the rest once."""
        alive = [row.sequence for row in batch.rows if not row.sequence.ended]
        decoding = all(row.count == 1 for row in batch.rows)
        if not decoding or len(alive) < 2 or self._failures > 1:
            return False
        for row in batch.rows:
            row.sequence.computed = min(row.sequence.computed, row.start)
        youngest = max(alive, key=lambda s: self.scheduler.running.index(s) if s.slot >= 0 else -1)
        if youngest.slot >= 0:
            self.scheduler.preempt(youngest)
        return True
