"""What a caller holds: an answer, a piece of one that is being written, the score of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from llmkernel.protocol import (
    FinishReason,
    Output,
    StreamDelta,
    Timings,
    TokenLogprob,
    Usage,
)

_NO_USAGE = Usage()
_NO_TIME = Timings()


@dataclass(frozen=True, slots=True)
class Delta:
    """What an answer gained: `delta.text` is the new text, and so is `str(delta)`.

    It is no `str`: the whole is `"".join(delta.text for delta in stream)`, or `stream.generation`.

    `index` says which of several answers. `logprobs` is None where none were asked for.
    """

    text: str
    token_ids: list[int]
    index: int = 0
    logprobs: list[TokenLogprob] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, eq=False)
class Generation(str):  # noqa: SLOT000 - the dataclass has them
    """An answer: its text, a `str` in every respect, and beside it how the model came to it.

    It is joined, compared, counted, grouped and written to a file as the text alone, which is
    `text` without the rest. Two answers with the same text are equal, whatever else they have.
    With n above 1 `samples` holds all answers, and the other fields are those of the
    first. Of best_of the best come first.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    """"stop" (by itself or at a stop text), "length", "cancelled" or "error"."""
    stop_reason: str | int | None = None
    """The stop text or stop token id that ended it; None where the model ended by itself."""
    usage: Usage = _NO_USAGE
    timings: Timings = _NO_TIME
    logprobs: list[TokenLogprob] | None = None
    mean_logprob: float | None = None
    prompt_token_ids: list[int] | None = None
    """Only with prompt_logprobs."""
    prompt_logprobs: list[TokenLogprob] | None = None
    _others: tuple[Generation, ...] = field(default=(), repr=False)

    def __new__(cls, text: str = "", *_: Any, **__: Any) -> Self:
        """The text; the fields are set as those of any dataclass."""
        return str.__new__(cls, text)

    @property
    def samples(self) -> list[Generation]:
        """All answers, this one first. Usage and timings are those of the whole request."""
        return [self, *self._others]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        more = f", {len(self.samples)} samples" if self._others else ""
        tokens = len(self.token_ids)
        return (
            f"Generation({self.text!r}, finish_reason={self.finish_reason!r}, "
            f"{tokens} token{'' if tokens == 1 else 's'}{more})"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("Generation(...)" if cycle else repr(self))


class Piece(NamedTuple):
    """A token of a text that was tokenised, and the text it stands for."""

    token_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model holds a text, token by token.

    `logprobs` has an entry for each token that was scored; only the first token of all
    has none, as nothing precedes it.
    """

    logprobs: list[TokenLogprob]
    usage: Usage = _NO_USAGE
    timings: Timings = _NO_TIME

    @property
    def token_ids(self) -> list[int]:
        """The tokens that were scored, the unscored first one included."""
        return [entry.token_id for entry in self.logprobs]

    @property
    def total(self) -> float:
        """Sum of the log-probabilities, natural logarithm."""
        return math.fsum(self._values())

    @property
    def mean(self) -> float:
        """Mean log-probability per scored token; NaN where none was."""
        values = self._values()
        return math.fsum(values) / len(values) if values else math.nan

    @property
    def perplexity(self) -> float:
        """exp(-mean)."""
        return math.exp(-self.mean)

    def _values(self) -> list[float]:
        return [entry.logprob for entry in self.logprobs if entry.logprob is not None]

    def __repr__(self) -> str:
        return f"Score(total={self.total:.4f}, mean={self.mean:.4f}, {len(self.logprobs)} tokens)"


class Collector:
    """Puts deltas together, so that what came so far is there at any time.

    An interrupt may come at any moment: a delta is there or not, and may be added again.
    """

    def __init__(self) -> None:
        self._parts: dict[int, dict[int, StreamDelta]] = {}
        """By answer and sequence number."""

    def add(self, delta: StreamDelta) -> Delta:
        """Take a delta off the wire."""
        self._parts.setdefault(delta.index, {})[delta.seq] = delta
        return Delta(delta.text, delta.token_ids, delta.index, delta.logprobs)

    def outputs(
        self, ends: Sequence[Output] = (), reason: FinishReason = "cancelled"
    ) -> list[Output]:
        """The answers so far. `ends` says how each ended, and has its content where no delta had."""
        known = {output.index: output for output in ends}
        indices = sorted(known.keys() | self._parts.keys())
        return [
            self._output(index, known.get(index) or Output(index=index, finish_reason=reason))
            for index in indices
        ]

    def _output(self, index: int, end: Output) -> Output:
        found = self._parts.get(index)
        if not found:
            return end
        parts = [found[seq] for seq in sorted(found)]
        logprobs = [entry for part in parts for entry in part.logprobs or ()]
        return Output(
            index=index,
            text="".join(part.text for part in parts),
            token_ids=[token for part in parts for token in part.token_ids],
            finish_reason=end.finish_reason,
            stop_reason=end.stop_reason,
            logprobs=logprobs if parts[0].logprobs is not None else None,
            mean_logprob=end.mean_logprob,
        )


def generation(
    outputs: Sequence[Output],
    usage: Usage,
    timings: Timings,
    prompt_token_ids: list[int] | None = None,
    prompt_logprobs: list[TokenLogprob] | None = None,
) -> Generation:
    """One Generation of all answers; an empty, cancelled one where there is none."""

    def make(output: Output, others: tuple[Generation, ...]) -> Generation:
        return Generation(
            text=output.text,
            token_ids=output.token_ids,
            finish_reason=output.finish_reason,
            stop_reason=output.stop_reason,
            usage=usage,
            timings=timings,
            logprobs=output.logprobs,
            mean_logprob=output.mean_logprob,
            prompt_token_ids=prompt_token_ids,
            prompt_logprobs=prompt_logprobs,
            _others=others,
        )

    first, *rest = outputs or [Output(finish_reason="cancelled")]
    return make(first, tuple(make(output, ()) for output in rest))
