"""A completion, whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from llmkernel.client.generation import Generation
from llmkernel.gateway.openai.chat_answer import FINGERPRINT
from llmkernel.gateway.openai.completion_log_probabilities import (
    CompletionLogProbabilities,
    lists,
)
from llmkernel.gateway.openai.usage import Usage, usage
from llmkernel.gateway.translation.naming import Head


class CompletionChoice(msgspec.Struct):
    """One answer to one of the prompts, or in a stream what it gained."""

    index: int
    """n answers to the first prompt, then those to the second, and so on."""
    text: str
    logprobs: CompletionLogProbabilities | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct):
    """The answer to a completion; in a stream each event is one."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str = FINGERPRINT


def answer(
    head: Head, generations: Sequence[Generation], echoes: Sequence[str] | None = None
) -> Completion:
    """All answers to all prompts; `echoes` are the texts of the prompts, where they come first."""
    pairs = zip(generations, echoes or [""] * len(generations), strict=True)
    samples = [(sample, echo) for generation, echo in pairs for sample in generation.samples]
    choices = [_choice(index, *sample) for index, sample in enumerate(samples)]
    return Completion(head.id, head.created, head.model, choices, usage(generations))


def _choice(index: int, sample: Generation, echo: str) -> CompletionChoice:
    scored = [*(sample.prompt_logprobs or ()), *(sample.logprobs or ())]
    asked = sample.logprobs is not None or sample.prompt_logprobs is not None
    lead = _unwritten(sample, echo)
    return CompletionChoice(
        index=index,
        text=echo + sample.text,
        logprobs=_clip(lists(scored, -lead)) if asked else None,
        finish_reason=sample.finish_reason,
    )


def _unwritten(sample: Generation, echo: str) -> int:
    """Characters of a first token that the tokenizer put before the prompt, such as a BOS."""
    if not sample.prompt_logprobs:
        return 0
    first = sample.prompt_logprobs[0].text
    return 0 if echo.startswith(first) else len(first)


def _clip(logprobs: CompletionLogProbabilities) -> CompletionLogProbabilities:
    offsets = [max(0, offset) for offset in logprobs.text_offset]
    return msgspec.structs.replace(logprobs, text_offset=offsets)
