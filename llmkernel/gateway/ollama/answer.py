"""Lines of an answer, and the last one, which has the figures."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Literal

import msgspec

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.translation.log_probabilities import Entry, entries
from llmkernel.protocol import TokenLogprob

Kind = Literal["chat", "generate"]


class Said(msgspec.Struct):
    """What a turn gained."""

    content: str
    role: Literal["assistant"] = "assistant"


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A part of an answer: `message` of a chat, `response` of a prompt. Durations are in ns."""

    model: str
    created_at: str
    message: Said | msgspec.UnsetType = msgspec.UNSET
    response: str | msgspec.UnsetType = msgspec.UNSET
    logprobs: list[Entry] | msgspec.UnsetType = msgspec.UNSET
    done: bool | msgspec.UnsetType = msgspec.UNSET
    done_reason: str | msgspec.UnsetType = msgspec.UNSET
    total_duration: int | msgspec.UnsetType = msgspec.UNSET
    load_duration: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_count: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_duration: int | msgspec.UnsetType = msgspec.UNSET
    eval_count: int | msgspec.UnsetType = msgspec.UNSET
    eval_duration: int | msgspec.UnsetType = msgspec.UNSET


class Lines:
    """Makes the lines of one answer. It begins when this is made; `loaded` ends the loading."""

    def __init__(self, kind: Kind, model: str) -> None:
        self._kind = kind
        self._model = model
        self._began = self._loaded = time.monotonic()

    def loaded(self) -> None:
        """The model is there."""
        self._loaded = time.monotonic()

    def delta(self, delta: Delta) -> list[Line]:
        """The lines for a part of the answer."""
        if not delta.text and not delta.logprobs:
            return []
        return [self._line(delta.text, delta.logprobs, done=False)]

    def end(self, generation: Generation) -> Line:
        """The last line of a stream."""
        return self._last("", None, generation)

    def whole(self, generation: Generation) -> Line:
        """The only line, where there is no stream."""
        return self._last(generation.text, generation.logprobs, generation)

    def nothing(self, reason: Literal["load", "unload"]) -> Line:
        """The answer to a request without a question."""
        line = self._line("", None, done=True)
        return msgspec.structs.replace(line, done_reason=reason)

    def _last(self, text: str, logprobs: list[TokenLogprob] | None, generation: Generation) -> Line:
        usage, timings = generation.usage, generation.timings
        return msgspec.structs.replace(
            self._line(text, logprobs, done=True),
            done_reason=generation.finish_reason,
            total_duration=_nanoseconds(time.monotonic() - self._began),
            load_duration=_nanoseconds(self._loaded - self._began),
            prompt_eval_count=usage.prompt_tokens,
            prompt_eval_duration=_nanoseconds(timings.prefill),
            eval_count=usage.completion_tokens,
            eval_duration=_nanoseconds(timings.decode),
        )

    def _line(self, text: str, logprobs: list[TokenLogprob] | None, *, done: bool) -> Line:
        chat = self._kind == "chat"
        return Line(
            model=self._model,
            created_at=now(),
            message=Said(text) if chat else msgspec.UNSET,
            response=msgspec.UNSET if chat else text,
            logprobs=msgspec.UNSET if logprobs is None else entries(logprobs),
            done=done,
        )


def now() -> str:
    """The time, as this API writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
