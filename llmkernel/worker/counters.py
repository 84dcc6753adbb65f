"""What the engine has done so far, and how fast it is now."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from llmkernel.protocol import Load
from llmkernel.worker.scheduler import Scheduler
from llmkernel.worker.step import StepBatch
from llmkernel.worker.step_times import StepTimes

RATE_SECONDS = 10.0
"""The window of the reported tokens/s."""


@dataclass(slots=True)
class Counters:
    """Totals since the start. The engine's thread writes, any thread reads."""

    steps: int = 0
    generated: int = 0
    prompt: int = 0
    cached: int = 0
    finished: int = 0
    failed: int = 0
    times: StepTimes = field(default_factory=StepTimes)
    _marks: deque[tuple[float, int]] = field(
        default_factory=lambda: deque([(time.monotonic(), 0)], maxlen=4096)
    )

    def step_done(self, batch: StepBatch, now: float) -> None:
        """One more step was read back at `now`."""
        self.steps += 1
        self.times.done(batch, now)
        self._marks.append((now, self.generated))

    def tokens_per_second(self) -> float:
        """Tokens generated in the last RATE_SECONDS, a second."""
        now = time.monotonic()
        marks = list(self._marks)
        then, count = next((m for m in marks if m[0] >= now - RATE_SECONDS), (now, self.generated))
        return (self.generated - count) / (now - then) if now - then > 1e-3 else 0.0

    def load(self, scheduler: Scheduler) -> Load:
        """The totals, and what runs and waits now."""
        return Load(
            running=len(scheduler.running),
            waiting=scheduler.waiting,
            free_blocks=scheduler.blocks.free,
            cached_blocks=scheduler.blocks.cached,
            steps=self.steps,
            preemptions=scheduler.preemptions,
            tokens_generated=self.generated,
            prompt_tokens=self.prompt,
            cached_tokens=self.cached,
            tokens_per_second=self.tokens_per_second(),
            requests_finished=self.finished,
            requests_failed=self.failed,
        )
