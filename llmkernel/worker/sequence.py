"""A request inside the engine: plain data that the front, the scheduler and the runner share.

No torch and no tokenizer here: the engine speaks token ids. A `Request` is what
one client asked for; each of its `width` answers is a `Sequence`, which owns KV
blocks and grows by one token a step.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmkernel.errors import LLMKernelError
from llmkernel.params import SamplingParams

NO_TOKEN = -1
"""What the sampler returns for a row whose logits hold NaN or nothing finite."""


class Candidate(NamedTuple):
    """A token and its log-probability under the model's own logits."""

    token_id: int
    logprob: float


class Sampled(NamedTuple):
    """What the sampler picked for one row.

    `logprob` and `top` are filled where the request asked for them; `top` is
    sorted by falling log-probability.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[Candidate, ...] = ()


@dataclass(slots=True, eq=False)
class Request:
    """One client request, admitted by the front and validated.

    `key` is made by the worker and never reused. `max_tokens` is the resolved
    limit (never None). `salt` keeps prefix caches of different principals apart.
    `eos_token_ids` end a sequence unless `params.ignore_eos`.
    """

    key: int
    client: str
    prompt: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    salt: bytes = b""
    eos_token_ids: frozenset[int] = frozenset()
    seed: int = 0
    arrived: float = 0.0
    admitted: float = 0.0
    first_token: float = 0.0
    ended: float = 0.0
    first_step: int = 0
    """Number of the step in which it was admitted."""
    cached_tokens: int = 0
    prompt_logprobs: list[Sampled] = field(default_factory=list)
    """For prompt tokens 1.. in order, where params.prompt_logprobs asks for them."""
    sequences: list[Sequence] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer of a request, as the scheduler sees it.

    Invariants: `computed <= length`; `length == len(token_ids) + in_flight`; the
    blocks hold keys and values of tokens [0, computed) in order. `in_flight`
    counts tokens that were sampled on the device and not read back yet.
    """

    request: Request
    index: int
    token_ids: list[int]
    computed: int = 0
    in_flight: int = 0
    blocks: list[int] = field(default_factory=list)
    slot: int = -1
    """Row of the per-sequence device state (last token, penalty counts); -1 while not running."""
    paused: bool = False
    """The reader gave no credit: keep the blocks, do not schedule."""
    ended: bool = False
    """It got its EndEvent; results that are still on their way are dropped."""
    registered: int = 0
    """Blocks from the front that are in the prefix cache."""
    digests: list[bytes] = field(default_factory=list)
    """Chained hashes of the full blocks, as far as they were needed."""
    rows_in_flight: int = 0
    """Rows that were launched and not read back yet, those that are not sampled included."""
    last_step: int = 0
    """Number of the step in which it last had a row, was admitted or was resumed."""
    output_start: int = 0
    """Index of the first generated token: the length of the prompt."""

    @property
    def length(self) -> int:
        """Tokens known or in flight."""
        return len(self.token_ids) + self.in_flight

    @property
    def generated(self) -> int:
        """Generated tokens known or in flight."""
        return len(self.token_ids) + self.in_flight - self.output_start

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return len(self.token_ids) + self.in_flight - self.computed

    @property
    def longest(self) -> int:
        """Tokens whose keys and values can be needed: all but the last that may be generated."""
        return self.output_start + max(self.request.max_tokens, 1) - 1

    @property
    def output_ids(self) -> AbstractSequence[int]:
        """The generated tokens read back so far."""
        return self.token_ids[self.output_start :]


class TokenEvent(NamedTuple):
    """The sequence `answer` of a request gained a token."""

    request: Request
    answer: int
    sampled: Sampled


class EndEvent(NamedTuple):
    """The sequence `answer` of a request ended. `error` is set for finish_reason "error" only.

    `stop_reason` is the stop token id where one ended it.
    """

    request: Request
    answer: int
    finish_reason: str
    stop_reason: int | None = None
    error: LLMKernelError | None = None


EngineEvent = TokenEvent | EndEvent
