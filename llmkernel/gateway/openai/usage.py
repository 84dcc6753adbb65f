"""Tokens read and written, as OpenAI counts them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmkernel.client.generation import Generation


class PromptDetails(msgspec.Struct):
    """What of the prompt was there before."""

    cached_tokens: int


class Usage(msgspec.Struct):
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


def usage(answers: Sequence[Generation]) -> Usage:
    """The sum over all prompts of a request."""
    read = sum(answer.usage.prompt_tokens for answer in answers)
    written = sum(answer.usage.completion_tokens for answer in answers)
    cached = sum(answer.usage.cached_tokens for answer in answers)
    return Usage(read, written, read + written, PromptDetails(cached))
