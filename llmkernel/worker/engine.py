"""The decode loop: plan a step, launch it, deliver what came back.

One thread owns everything here. Other threads leave orders; events leave in one list per step.
With `depth` 1 a step is planned and launched before the last tokens are known; with 0 it waits.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llmkernel.errors import (
    DeviceOutOfMemory,
    EngineDied,
    InvalidRequest,
    LLMKernelError,
    NumericalError,
    PromptTooLong,
)
from llmkernel.protocol import Load, StepReport
from llmkernel.worker.blocks import BlockPool
from llmkernel.worker.counters import Counters
from llmkernel.worker.failures import Failures
from llmkernel.worker.ledger import Ledger
from llmkernel.worker.scheduler import Scheduler
from llmkernel.worker.sequence import NO_TOKEN, EngineEvent, Request, Sampled, Sequence
from llmkernel.worker.step import GraphRoom, Row, Runner, StepBatch, StepResult

_log = logging.getLogger(__name__)


class Engine:
    """Continuous batching over a runner.

    Every sequence of a submitted request gets TokenEvents and then exactly one EndEvent,
    whatever happens. `on_events` gets at most one list a step and `on_death` one call if
    the loop ends by itself, both on the engine's thread; only what is submitted after the
    loop has ended is answered on the caller's. All public methods may be called from any
    thread.
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
        max_prefill_tokens: int | None = None,
        graph_room: GraphRoom | None = None,
    ) -> None:
        self.blocks = BlockPool(num_blocks, block_size, prefix_cache)
        self.scheduler = Scheduler(
            self.blocks,
            max_concurrent=max_concurrent,
            max_batch_tokens=max_batch_tokens,
            max_prefill_tokens=max_prefill_tokens,
            graph_room=graph_room,
            on_release=runner.release,
        )
        self._runner = runner
        self._limit = min(context_length, self.blocks.capacity * block_size)
        self._depth = depth
        self._on_events = on_events
        self._on_death = on_death
        self._orders: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._over: tuple[str, EngineDied | None] | None = None
        """How everything ends once the loop has ended."""
        self._closing = threading.RLock()
        self._launched: deque[tuple[StepBatch, Any]] = deque()
        self._failures = Failures()
        self._count = Counters()
        self._ledger = Ledger(self._count)
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
        if self._thread.ident is None:
            self._leave(None)
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    def submit(self, request: Request) -> None:
        """Take a request; its events follow."""
        self._order(self._submit, request)

    def cancel(self, key: int) -> None:
        """End what is left of a request as cancelled. An unknown key had ended."""
        self._order(self._cancel, key)

    def finish(self, key: int, index: int) -> None:
        """End one sequence as "stop": its text reached a stop string."""
        self._order(self._finish, key, index)

    def pause(self, key: int) -> None:
        """Do not schedule a request until `resume`; it keeps its blocks while nobody needs them."""
        self._order(self._for_each, key, self.scheduler.pause)

    def resume(self, key: int) -> None:
        """Schedule a paused request again."""
        self._order(self._for_each, key, self.scheduler.resume)

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
        return self._count.load(self.scheduler)

    def steps(self) -> StepReport:
        """How the steps went."""
        return self._count.times.report()

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, running or on its way; exact between steps."""
        return not (self._ledger.requests or self._launched or self._orders)

    @property
    def keys(self) -> frozenset[int]:
        """Keys of the requests that have not ended."""
        return frozenset(self._ledger.requests)

    def step_seconds(self) -> float:
        """How long the present step has taken so far; 0 between steps."""
        began = self._step_began
        return time.monotonic() - began if began else 0.0

    # The loop ------------------------------------------------------------------------

    def step(self) -> bool:
        """Orders, plan, launch, deliver. False if there was nothing to do."""
        self._step_began = time.monotonic()
        self._take_orders()
        batch = self.scheduler.schedule()
        if batch is not None:
            self._launch(batch)
        due = bool(self._launched) and (batch is None or len(self._launched) > self._depth)
        if due:
            self._deliver(*self._launched.popleft())
        self._publish()
        self._step_began = 0.0
        return due or batch is not None

    def _take_orders(self) -> None:
        while self._orders:
            order, arguments = self._orders.popleft()
            order(*arguments)

    def _run(self) -> None:
        death: BaseException | None = None
        try:
            while not self._stopping:
                if not self.step():
                    self._wake.wait()
                    self._wake.clear()
            for key in self.keys:
                self._cancel(key)
        except BaseException as error:  # noqa: BLE001 - nobody may wait for a loop that is gone
            _log.exception("the decode loop ended")
            death = error
        self._leave(death)

    def _launch(self, batch: StepBatch) -> None:
        self._count.times.launched(batch)
        try:
            handle = self._runner.launch(batch)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails this step only
            failure = self._understand(batch, error)
        else:
            self._launched.append((batch, handle))
            return
        if isinstance(failure, DeviceOutOfMemory):
            self._make_room(batch, failure)
        else:
            self._fail_step(batch, failure)

    def _deliver(self, batch: StepBatch, handle: Any) -> None:
        try:
            result = self._runner.collect(handle)
        except Exception as error:  # noqa: BLE001 - as in _launch
            failure = self._understand(batch, error)
        else:
            self._take(batch, result)
            return
        self._fail_step(batch, failure)  # later steps may stand on it: there is no second try

    def _take(self, batch: StepBatch, result: StepResult) -> None:
        """Hand out what a step gave."""
        self._failures.none()
        now = time.monotonic()
        rows = zip(batch.rows, result.sampled, result.prompt_logprobs, strict=True)
        for row, sampled, scores in rows:
            self.scheduler.landed(row)
            if not row.sequence.ended:
                self._take_row(row, sampled, scores, now)
        self._count.step_done(batch, now)

    def _take_row(
        self, row: Row, sampled: Sampled | None, scores: list[Sampled], now: float
    ) -> None:
        sequence, request = row.sequence, row.sequence.request
        if scores and sequence.index == 0:
            # after a preemption the same positions may come again
            request.prompt_logprobs += scores[max(0, len(request.prompt_logprobs) - row.start) :]
        broken = bool(scores) and any(map(_broken, scores))
        if broken or (sampled is not None and sampled.token_id == NO_TOKEN):
            self._fail(request, NumericalError("The model gave no finite number for this request."))
            return
        if sequence.slot >= 0:  # before it may end: a prompt with a short answer is worth keeping
            self.scheduler.remember(sequence, min(row.start + row.count, sequence.computed))
        if sampled is not None:
            self._gain(sequence, sampled, now)
        elif request.max_tokens == 0 and row.start + row.count >= sequence.output_start:
            self._end(sequence, "length")

    def _gain(self, sequence: Sequence, sampled: Sampled, now: float) -> None:
        self._ledger.gain(sequence, sampled, now)
        request, token = sequence.request, sampled.token_id
        params = request.params
        produced = len(sequence.token_ids) - sequence.output_start
        may_stop = produced >= params.min_tokens
        if may_stop and token in params.stop_token_ids:
            self._end(sequence, "stop", stop_reason=token)
        elif may_stop and not params.ignore_eos and token in request.eos_token_ids:
            self._end(sequence, "stop")
        elif produced >= request.max_tokens:
            self._end(sequence, "length")

    def _publish(self) -> None:
        if events := self._ledger.take_events():
            self._on_events(events)

    # Requests ------------------------------------------------------------------------

    def _order(self, order: Callable[..., None], *arguments: Any) -> None:
        self._orders.append((order, arguments))
        self._wake.set()
        if self._over is not None:
            self._end_the_rest()

    def _submit(self, request: Request) -> None:
        self._ledger.enrol(request)
        if not request.prompt:
            self._fail(request, InvalidRequest("The prompt is empty: give at least one token."))
            return
        try:
            self.check_fits(len(request.prompt), request.max_tokens)
        except PromptTooLong as error:
            self._fail(request, error)
        else:
            self._count.prompt += len(request.prompt)
            self.scheduler.add(request)

    def _for_each(self, key: int, change: Callable[[Sequence], None]) -> None:
        for sequence in self._ledger.unfinished(key):
            change(sequence)

    def _cancel(self, key: int) -> None:
        for sequence in self._ledger.unfinished(key):
            self._end(sequence, "cancelled")

    def _finish(self, key: int, index: int) -> None:
        for sequence in self._ledger.unfinished(key):
            if sequence.index == index:
                self._end(sequence, "stop")

    def _end(self, sequence: Sequence, reason: str, stop_reason: int | None = None) -> None:
        self.scheduler.remove(sequence)
        self._ledger.end(sequence, reason, stop_reason)

    def _fail(self, request: Request, error: LLMKernelError) -> None:
        """End what is left of a request; nothing that it computed may be found again."""
        for sequence in self._ledger.unfinished(request.key):
            self.blocks.forget(sequence.blocks)
            self.scheduler.remove(sequence)
            self._ledger.end(sequence, "error", error=error)

    # Failures ------------------------------------------------------------------------

    def _understand(self, batch: StepBatch, error: Exception) -> LLMKernelError:
        """What an exception means; raises EngineDied where going on makes no sense."""
        self._count.times.failed(batch)
        _log.error("a step of %d rows failed", len(batch.rows), exc_info=error)
        for row in batch.rows:
            self.scheduler.landed(row)
        return self._failures.understand(error)

    def _fail_step(self, batch: StepBatch, failure: LLMKernelError) -> None:
        for row in batch.rows:
            self._fail(row.sequence.request, failure)

    def _make_room(self, batch: StepBatch, failure: LLMKernelError) -> None:
        """The step was too large: make it smaller and try again, at the cost of few.

        A large step of prompts is cut. Else the largest prefill fails. Without one the youngest, or
        then the younger half, is computed again later. What does not even fit alone fails.
        """
        once_more = self._failures.without_memory > 1
        while self._launched:  # what was computed before it holds
            self._deliver(*self._launched.popleft())
        rows = [row for row in batch.rows if row.sequence.slot >= 0]
        largest = max(rows, key=lambda row: row.count, default=None)
        self.scheduler.calm_down()
        if self.scheduler.give_up_large_steps(batch):
            _log.warning("from now on steps of prompts are small")
        elif largest is not None and (largest.count > 1 or len(rows) == 1):
            self._fail(largest.sequence.request, failure)
        else:
            away = len(rows) // 2 if once_more else 1
            for sequence in self.scheduler.youngest([row.sequence for row in rows], away):
                self.scheduler.preempt(sequence)
        for row in rows:
            if row.sequence.slot >= 0:
                self.scheduler.rewind(row)

    # The end -------------------------------------------------------------------------

    def _leave(self, death: BaseException | None) -> None:
        """The loop has ended, and so does everything that it had and will be given."""
        self._step_began = 0.0
        self._launched.clear()
        died = None
        if death is not None:
            broke = EngineDied("The decode loop broke; the worker leaves.")
            died = death if isinstance(death, EngineDied) else broke
        self._over = ("cancelled" if died is None else "error", died)
        self._end_the_rest()
        if death is not None:
            self._on_death(death)

    def _end_the_rest(self) -> None:
        """End what has not ended without the books of the scheduler, which may be broken."""
        assert self._over is not None, "only once the loop has ended"
        reason, error = self._over
        with self._closing:
            while self._orders:
                order, arguments = self._orders.popleft()
                if order == self._submit:
                    self._ledger.enrol(*arguments)
            for key in self.keys:
                for sequence in self._ledger.unfinished(key):
                    self._ledger.end(sequence, reason, error=error)
            try:
                self._publish()
            except Exception:  # noqa: BLE001 - whoever is to be told is broken, and the process leaves
                _log.exception("the last events could not be delivered")


def _broken(scored: Sampled) -> bool:
    return scored.logprob is not None and math.isnan(scored.logprob)
