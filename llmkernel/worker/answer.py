"""One answer as it grows: sampled tokens in, text and log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

from llmkernel.params import SamplingParams
from llmkernel.protocol import FinishReason, Output, TokenLogprob, TopToken
from llmkernel.worker.sequence import Candidate, EndEvent, EngineEvent, Sampled, TokenEvent
from llmkernel.worker.text import TextStream, Tokenizer

TokenText = Callable[[int], str]


class Added(NamedTuple):
    """What an answer gained since it was last looked at."""

    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None


_NOTHING = Added("", [], None)


class Answer:
    """One of the answers of a request.

    With `eager` its text is made as tokens come; else once, at the end, which costs
    less. The text ends before a stop text and before the token that ended it; the
    token ids include that token, or the one that completed the stop text.
    """

    __slots__ = (
        "_eager", "_ended", "_fresh", "_logprobs", "_push", "_stop_reason", "_stream", "_texts",
        "_token_text", "_total_logprob", "finish_reason", "index", "over", "token_ids",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        tokenizer: Tokenizer,
        *,
        eager: bool,
    ) -> None:
        self.index = index
        self.over = False
        """Whether nothing will be added any more."""
        self.finish_reason: FinishReason | None = None
        self.token_ids: list[int] = []
        self._stop_reason: str | int | None = None
        self._logprobs: list[TokenLogprob] | None = None if params.logprobs is None else []
        self._total_logprob: float | None = None
        self._texts: list[str] = []
        self._fresh: list[Sampled] = []
        self._ended: EndEvent | None = None
        self._stream = TextStream(tokenizer, params.stop, params.skip_special_tokens)
        plain = not params.stop and not params.wants_logprob
        self._push = self._stream.detokenizer.push if plain else None
        """Makes text of tokens that cannot end the answer and have nothing but their ids."""
        self._token_text = tokenizer.token_text
        self._eager = eager

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of its tokens, where the sampler was asked for them."""
        return None if self._total_logprob is None else self._total_logprob / len(self.token_ids)

    @property
    def found_stop(self) -> bool:
        """Whether a stop text ended it before the engine did."""
        return self.over and self._ended is None

    def take(self, event: EngineEvent) -> None:
        """Note what the engine did; the work is done in `advance`."""
        if isinstance(event, TokenEvent):
            self._fresh.append(event.sampled)
        else:
            self._ended = event

    def advance(self) -> Added:
        """Take in what came. Its end, or a stop text that completes in it, ends the answer."""
        if self.over or not (self._ended or (self._fresh and self._eager)):
            self._fresh = [] if self.over else self._fresh
            return _NOTHING
        fresh, self._fresh = self._fresh, []
        ids = [sampled.token_id for sampled in fresh]
        if self._push is not None and self._ended is None:
            self.token_ids += ids
            text = self._push(ids)
            self._texts.append(text)
            return Added(text, ids, None)
        text, stop, used = self._stream.push(ids[:-1] if self._stopped_by_token else ids)
        if stop is None:
            used = len(ids)  # the token that ended it counts, though its text is left out
        if self._ended is not None:
            tail = self._stream.flush()
            text, stop = text + tail.text, stop or tail.stop
        self._conclude(stop)
        return self._add(text, fresh[:used], ids[:used])

    def output(self, *, content: bool) -> Output:
        """The answer as it goes into a terminal message, with or without its content."""
        return Output(
            index=self.index,
            text="".join(self._texts) if content else "",
            token_ids=self.token_ids if content else [],
            finish_reason=self.finish_reason or "error",
            stop_reason=self._stop_reason,
            logprobs=self._logprobs if content else None,
            mean_logprob=self.mean_logprob,
        )

    @property
    def _stopped_by_token(self) -> bool:
        return self._ended is not None and self._ended.finish_reason == "stop"

    def _conclude(self, stop: str | None) -> None:
        ended = self._ended
        if stop is not None and (ended is None or ended.finish_reason in ("stop", "length")):
            self.finish_reason, self._stop_reason = "stop", stop
        elif ended is not None:
            self.finish_reason = cast("FinishReason", ended.finish_reason)
            self._stop_reason = ended.stop_reason
        self.over = self.finish_reason is not None

    def _add(self, text: str, taken: list[Sampled], ids: list[int]) -> Added:
        self.token_ids += ids
        self._texts.append(text)
        self._sum(taken)
        if self._logprobs is None:
            return Added(text, ids, None)
        logprobs = [logprob_entry(sampled, self._token_text) for sampled in taken]
        self._logprobs += logprobs
        return Added(text, ids, logprobs)

    def _sum(self, taken: Iterable[Sampled]) -> None:
        for sampled in taken:
            if sampled.logprob is not None:
                self._total_logprob = (self._total_logprob or 0.0) + sampled.logprob


def logprob_entry(sampled: Sampled, token_text: TokenText) -> TokenLogprob:
    """A token's log-probability and alternatives, with their texts."""
    return TokenLogprob(
        token_id=sampled.token_id,
        text=token_text(sampled.token_id),
        logprob=sampled.logprob,
        top=[_top_token(candidate, token_text) for candidate in sampled.top],
    )


def _top_token(candidate: Candidate, token_text: TokenText) -> TopToken:
    return TopToken(
        token_id=candidate.token_id,
        text=token_text(candidate.token_id),
        logprob=candidate.logprob,
    )
