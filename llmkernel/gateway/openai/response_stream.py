"""A response, event by event."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.client.generation import Delta, Generation
from llmkernel.gateway.openai import response as responses
from llmkernel.gateway.openai.dialect import Error
from llmkernel.gateway.openai.response import OutputMessage, OutputText, Response
from llmkernel.gateway.translation.log_probabilities import entries


class ResponseEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a streamed response; `type` says which of the other fields it has."""

    type: str
    sequence_number: int
    response: Response | msgspec.UnsetType = msgspec.UNSET
    output_index: int | msgspec.UnsetType = msgspec.UNSET
    content_index: int | msgspec.UnsetType = msgspec.UNSET
    item_id: str | msgspec.UnsetType = msgspec.UNSET
    item: OutputMessage | msgspec.UnsetType = msgspec.UNSET
    part: OutputText | msgspec.UnsetType = msgspec.UNSET
    delta: str | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    logprobs: list[Any] | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType | None = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET
    param: str | msgspec.UnsetType | None = msgspec.UNSET


class ResponseStream:
    """Makes the events of one response, numbered from 0."""

    def __init__(self, response: Response, message_id: str) -> None:
        self.response = response
        self._message_id = message_id
        self._number = -1

    def begin(self) -> list[ResponseEvent]:
        """The events before the first text."""
        item = OutputMessage(self._message_id, "in_progress", [])
        return [
            self._event("response.created", response=self.response),
            self._event("response.in_progress", response=self.response),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._place(), part=OutputText()),
        ]

    def delta(self, delta: Delta) -> list[ResponseEvent]:
        """The events for a part of the text."""
        if not delta.text and not delta.logprobs:
            return []
        logprobs = entries(delta.logprobs or ())
        place = self._place()
        kind = "response.output_text.delta"
        return [self._event(kind, **place, delta=delta.text, logprobs=logprobs)]

    def end(self, generation: Generation) -> list[ResponseEvent]:
        """The events that close the response."""
        self.response = responses.ended(self.response, self._message_id, generation)
        (item,) = self.response.output
        (part,) = item.content
        place = self._place()
        last = f"response.{self.response.status}"
        done = {"text": part.text, "logprobs": part.logprobs}
        return [
            self._event("response.output_text.done", **place, **done),
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(last, response=self.response),
        ]

    def fail(self, error: Error) -> list[ResponseEvent]:
        """The events for a response that broke."""
        self.response = responses.failed(self.response, error)
        what = {"code": error.code, "message": error.message, "param": error.param}
        return [
            self._event("error", **what),
            self._event("response.failed", response=self.response),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> ResponseEvent:
        self._number += 1
        return ResponseEvent(type=kind, sequence_number=self._number, **fields)
