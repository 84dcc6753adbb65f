"""A chat completion, whole."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel._version import __version__
from llmkernel.client.generation import Generation
from llmkernel.gateway.openai.usage import Usage, usage
from llmkernel.gateway.translation.log_probabilities import Entry, entries
from llmkernel.gateway.translation.naming import Head
from llmkernel.protocol import TokenLogprob

FINGERPRINT = f"llmkernel-{__version__}"


class AnswerMessage(msgspec.Struct):
    """The turn that the model wrote."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class LogProbabilities(msgspec.Struct):
    """Those of the tokens of one answer."""

    content: list[Entry]
    refusal: None = None


class Choice(msgspec.Struct):
    """One of n answers."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: LogProbabilities | None


class ChatCompletion(msgspec.Struct):
    """The answer to a chat completion."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str = FINGERPRINT


def answer(head: Head, generation: Generation) -> ChatCompletion:
    """The whole answer, with one choice for each sample."""
    choices = [
        Choice(
            index=index,
            message=AnswerMessage(sample.text),
            finish_reason=sample.finish_reason,
            logprobs=log_probabilities(sample.logprobs),
        )
        for index, sample in enumerate(generation.samples)
    ]
    return ChatCompletion(head.id, head.created, head.model, choices, usage([generation]))


def log_probabilities(tokens: list[TokenLogprob] | None) -> LogProbabilities | None:
    """Those of some tokens; None where none were asked for."""
    return None if tokens is None else LogProbabilities(entries(tokens))
