"""A chat completion, chunk by chunk."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.openai.chat_answer import FINGERPRINT, LogProbabilities, log_probabilities
from llmkernel.gateway.openai.usage import Usage, usage
from llmkernel.gateway.translation.naming import Head


class ChunkDelta(msgspec.Struct, omit_defaults=True):
    """What a message gained."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct):
    """What one of n answers gained."""

    index: int
    delta: ChunkDelta
    logprobs: LogProbabilities | None = None
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct):
    """One event of a streamed chat completion."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    """Where asked for: null, and at the end a chunk without choices that has it."""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: str = FINGERPRINT


class ChatStream:
    """Makes the chunks of one answer: for each sample a role, its text, its reason to end."""

    def __init__(self, head: Head, *, include_usage: bool = False) -> None:
        self._head = head
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def delta(self, delta: Delta) -> list[ChatChunk]:
        """The chunks for a part of the answer."""
        chunks = self._begin(delta.index)
        if delta.text or delta.logprobs:
            logprobs = log_probabilities(delta.logprobs)
            part = ChunkDelta(content=delta.text)
            chunks.append(self._chunk([ChunkChoice(delta.index, part, logprobs)]))
        return chunks

    def end(self, generation: Generation) -> list[ChatChunk]:
        """The chunks that close the answer."""
        chunks = []
        for index, sample in enumerate(generation.samples):
            chunks += self._begin(index)
            last = ChunkChoice(index, ChunkDelta(), finish_reason=sample.finish_reason)
            chunks.append(self._chunk([last]))
        if self._include_usage:
            chunks.append(self._chunk([], usage([generation])))
        return chunks

    def _begin(self, index: int) -> list[ChatChunk]:
        if index in self._begun:
            return []
        self._begun.add(index)
        first = ChunkDelta(role="assistant", content="")
        return [self._chunk([ChunkChoice(index, first)])]

    def _chunk(self, choices: list[ChunkChoice], total: Usage | None = None) -> ChatChunk:
        counted = total if self._include_usage else msgspec.UNSET
        return ChatChunk(self._head.id, self._head.created, self._head.model, choices, counted)
