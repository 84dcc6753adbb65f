"""A message, whole."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel import protocol
from llmkernel.client.generation import Generation
from llmkernel.gateway.translation.naming import Head

StopReason = Literal["end_turn", "max_tokens", "stop_sequence"]


class TextBlock(msgspec.Struct):
    """A piece of the answer; there is one."""

    text: str
    type: Literal["text"] = "text"


class Usage(msgspec.Struct):
    """Tokens, of which `input_tokens` leaves out those that were in the cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class Message(msgspec.Struct):
    """The turn that the model wrote."""

    id: str
    model: str
    content: list[TextBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage
    role: Literal["assistant"] = "assistant"
    type: Literal["message"] = "message"


def answer(head: Head, generation: Generation) -> Message:
    """The whole answer."""
    return Message(
        id=head.id,
        model=head.model,
        content=[TextBlock(generation.text)],
        stop_reason=stop_reason(generation),
        stop_sequence=stop_sequence(generation),
        usage=usage(generation.usage),
    )


def stop_reason(generation: Generation) -> StopReason:
    """Why the answer ended."""
    if generation.finish_reason == "length":
        return "max_tokens"
    return "end_turn" if stop_sequence(generation) is None else "stop_sequence"


def stop_sequence(generation: Generation) -> str | None:
    """The text that ended it, where one did."""
    return generation.stop_reason if isinstance(generation.stop_reason, str) else None


def usage(counted: protocol.Usage) -> Usage:
    """The tokens as this API counts them."""
    return Usage(
        input_tokens=counted.prompt_tokens - counted.cached_tokens,
        output_tokens=counted.completion_tokens,
        cache_read_input_tokens=counted.cached_tokens,
    )
