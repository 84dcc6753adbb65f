"""A completion, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.openai.completion_answer import Completion, CompletionChoice
from llmkernel.gateway.openai.completion_log_probabilities import (
    CompletionLogProbabilities,
    lists,
)
from llmkernel.gateway.openai.usage import Usage, usage
from llmkernel.gateway.translation.naming import Head


class CompletionStream:
    """Makes the chunks of `n` answers to each of several prompts, told apart by index."""

    def __init__(self, head: Head, n: int = 1, *, include_usage: bool = False) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._length: dict[int, int] = {}

    def echo(self, texts: Sequence[str]) -> list[Completion]:
        """The prompts, as the beginning of each answer to them."""
        return [
            self._gain(number * self._n + index, text)
            for number, text in enumerate(texts)
            for index in range(self._n)
        ]

    def delta(self, prompt: int, delta: Delta) -> list[Completion]:
        """The chunks for a part of an answer to a prompt."""
        if not delta.text and not delta.logprobs:
            return []
        index = prompt * self._n + delta.index
        scored = delta.logprobs
        logprobs = None if scored is None else lists(scored, self._length.get(index, 0))
        return [self._gain(index, delta.text, logprobs)]

    def end(self, generations: Sequence[Generation]) -> list[Completion]:
        """The chunks that close the answers."""
        reasons = [
            sample.finish_reason for generation in generations for sample in generation.samples
        ]
        chunks = [
            self._chunk([CompletionChoice(index, "", finish_reason=reason)])
            for index, reason in enumerate(reasons)
        ]
        if self._include_usage:
            chunks.append(self._chunk([], usage(generations)))
        return chunks

    def _gain(
        self, index: int, text: str, logprobs: CompletionLogProbabilities | None = None
    ) -> Completion:
        self._length[index] = self._length.get(index, 0) + len(text)
        return self._chunk([CompletionChoice(index, text, logprobs)])

    def _chunk(self, choices: list[CompletionChoice], total: Usage | None = None) -> Completion:
        counted = total if self._include_usage else msgspec.UNSET
        return Completion(self._head.id, self._head.created, self._head.model, choices, counted)
