"""A step: what a runner is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from llmkernel.worker.sequence import Sampled, Sequence


@dataclass(slots=True)
class Row:
    """Part of a step: compute tokens [start, start + count) of one sequence.

    `samples` says that the chunk reaches the end and its last position is sampled.
    """

    sequence: Sequence
    start: int
    count: int
    samples: bool


@dataclass(slots=True)
class StepBatch:
    """All rows of one step, decode rows (count 1) first."""

    rows: list[Row]
    launched: float = 0.0
    """When it went to the runner, on the monotonic clock."""

    @property
    def tokens(self) -> int:
        """Tokens in the step."""
        return sum(row.count for row in self.rows)

    @property
    def read(self) -> int:
        """Tokens that the tokens of its prompts attend to, each counted by itself."""
        return sum(row.count * (row.start + row.count) for row in self.rows if row.count > 1)


class GraphRoom(NamedTuple):
    """What a step may be that is launched at once, as a captured graph, though it has prompts.

    `tokens` in all, and `read`: the tokens that each of them attends to, added up, since each
    reads them for itself.
    """

    tokens: int
    read: int


@dataclass(slots=True)
class StepResult:
    """What came back: one entry per row, in order.

    `sampled[i]` is None for a row that does not sample. `prompt_logprobs[i]` has
    one entry for each position of the chunk whose next token is a prompt token,
    where the request asked; else it is empty.
    """

    sampled: list[Sampled | None]
    prompt_logprobs: list[list[Sampled]]


class Runner(Protocol):
    """What computes a step; see worker/runner.py and worker/scripted.py."""

    def launch(self, batch: StepBatch) -> Any:
        """Enqueue a step and return a handle without waiting."""

    def collect(self, launched: Any) -> StepResult:
        """Wait for a launched step."""

    def release(self, slot: int) -> None:
        """Nobody uses this slot any more."""
