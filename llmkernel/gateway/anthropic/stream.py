"""A message, event by event."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.anthropic.answer import (
    Message,
    StopReason,
    TextBlock,
    Usage,
    stop_reason,
    stop_sequence,
    usage,
)
from llmkernel.gateway.translation.naming import Head


class EventDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the text gained, or why the message ended."""

    type: Literal["text_delta"] | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    stop_reason: StopReason | msgspec.UnsetType = msgspec.UNSET
    stop_sequence: str | msgspec.UnsetType | None = msgspec.UNSET


class MessageEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a streamed message; `type` says which of the other fields it has."""

    type: str
    message: Message | msgspec.UnsetType = msgspec.UNSET
    index: int | msgspec.UnsetType = msgspec.UNSET
    content_block: TextBlock | msgspec.UnsetType = msgspec.UNSET
    delta: EventDelta | msgspec.UnsetType = msgspec.UNSET
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


class MessageStream:
    """Makes the events of one message. `prompt_tokens` is what is known at its beginning."""

    def __init__(self, head: Head, prompt_tokens: int = 0) -> None:
        self._head = head
        self._prompt_tokens = prompt_tokens

    def begin(self) -> list[MessageEvent]:
        """The events before the first text."""
        usage = Usage(input_tokens=self._prompt_tokens)
        message = Message(self._head.id, self._head.model, [], None, None, usage)
        return [
            MessageEvent(type="message_start", message=message),
            MessageEvent(type="content_block_start", index=0, content_block=TextBlock("")),
            MessageEvent(type="ping"),
        ]

    def delta(self, delta: Delta) -> list[MessageEvent]:
        """The events for a part of the text."""
        if not delta.text:
            return []
        gained = EventDelta(type="text_delta", text=delta.text)
        return [MessageEvent(type="content_block_delta", index=0, delta=gained)]

    def end(self, generation: Generation) -> list[MessageEvent]:
        """The events that close the message; their usage is the exact one."""
        why = EventDelta(
            stop_reason=stop_reason(generation), stop_sequence=stop_sequence(generation)
        )
        return [
            MessageEvent(type="content_block_stop", index=0),
            MessageEvent(type="message_delta", delta=why, usage=usage(generation.usage)),
            MessageEvent(type="message_stop"),
        ]
