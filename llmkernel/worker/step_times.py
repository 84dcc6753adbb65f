"""How long steps take and what is in them, in buckets that a page of metrics can show.

The engine's thread writes, any thread reads; a count that is a step behind does no harm.
"""

from __future__ import annotations

import time
from bisect import bisect_left

from llmkernel.parts import STEP_PROMPTS, STEP_SECONDS, Spread, StepKind, StepReport
from llmkernel.worker.step import StepBatch


class StepTimes:
    """Counts steps by kind: those that read prompts, and those that only decode."""

    def __init__(self) -> None:
        self._prefill = _Kind()
        self._decode = _Kind()
        self._joined = 0
        self._prompts = _Spread(STEP_PROMPTS)
        self._read = 0.0
        """When the last step was read back."""

    def launched(self, batch: StepBatch) -> None:
        """A step goes to the runner now."""
        kind = self._kind(batch)
        kind.launched += 1
        if kind is self._prefill:
            self._joined += batch.rows[0].count == 1
            self._prompts.add(sum(row.count > 1 for row in batch.rows))
        batch.launched = time.monotonic()

    def done(self, batch: StepBatch, read: float) -> None:
        """A step's tokens were read back at `read`, and are handed out by now.

        With steps in flight the device takes them one after the other: a step's own time
        begins where the one before it was read back.
        """
        kind, taken = self._kind(batch), time.monotonic() - read
        computed = read - max(batch.launched, self._read)
        self._read = read
        kind.succeeded += 1
        kind.forward.add(computed)
        kind.decode.add(taken)
        kind.inference.add(computed + taken)

    def failed(self, batch: StepBatch) -> None:
        """A step broke."""
        self._kind(batch).failed += 1

    def report(self) -> StepReport:
        """All of it so far."""
        return StepReport(
            prefill=self._prefill.part(),
            decode=self._decode.part(),
            joined=self._joined,
            prompts=self._prompts.part(),
        )

    def _kind(self, batch: StepBatch) -> _Kind:
        """Rows of prompts come last, so the last row tells."""
        return self._prefill if batch.rows[-1].count > 1 else self._decode


class _Kind:
    __slots__ = ("decode", "failed", "forward", "inference", "launched", "succeeded")

    def __init__(self) -> None:
        self.launched = self.succeeded = self.failed = 0
        self.inference = _Spread(STEP_SECONDS)
        self.forward = _Spread(STEP_SECONDS)
        self.decode = _Spread(STEP_SECONDS)

    def part(self) -> StepKind:
        return StepKind(
            launched=self.launched,
            succeeded=self.succeeded,
            failed=self.failed,
            inference=self.inference.part(),
            forward=self.forward.part(),
            decode=self.decode.part(),
        )


class _Spread:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def part(self) -> Spread:
        return Spread(counts=list(self._counts), sum=self._sum)
