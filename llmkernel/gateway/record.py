"""What is remembered of a request: numbers and names, never a text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llmkernel.client.generation import Generation
from llmkernel.protocol import Timings


@dataclass(slots=True, kw_only=True)
class Record:
    """One request, for the log, the metrics and the status page."""

    id: str
    method: str
    route: str
    dialect: str
    principal: str = ""
    model: str = ""
    worker: str = ""
    asked: float = 0.0
    """When a worker was found for it, on the monotonic clock; 0 where none was."""
    answers: list[Timings] = field(default_factory=list)
    """The worker's times of each answer; those of one request may run side by side."""
    status: int = 0
    outcome: str = ""
    """ok, dropped, or the code of what went wrong."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    max_new_tokens: int = 0
    queue: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    validation: float = 0.0
    finish_reason: str = ""
    generates: bool = False
    streamed: bool = False
    first_byte: float | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def inference(self) -> float:
        """Seconds in which the worker computed."""
        return self.prefill + self.decode

    def add(self, answer: Generation) -> None:
        """Count an answer; a request may have several."""
        usage, timings = answer.usage, answer.timings
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.generated_tokens += usage.completion_tokens
        self.queue += timings.queue
        self.prefill += timings.prefill
        self.answers.append(timings)
        self.decode += timings.decode
        self.finish_reason = answer.finish_reason

    def end(self) -> None:
        """It is over."""
        self.seconds = time.monotonic() - self.began
