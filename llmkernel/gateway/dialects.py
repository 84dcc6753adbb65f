"""How errors are worded: each dialect has its own shape for the same failure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import msgspec

from llmkernel.gateway.faults import Failure

JSON = "application/json"


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


class Dialect(Protocol):
    """What a family of routes has in common."""

    @property
    def name(self) -> str:
        """Groups its routes in logs, metrics and the OpenAPI document."""

    def reply(self, failure: Failure) -> Reply:
        """The answer for a failure before anything else was sent."""

    def last_words(self, failure: Failure) -> bytes:
        """What ends a stream that has begun: whole frames, the closing ones included."""


class ErrorBody(msgspec.Struct):
    """The error of the gateway's own routes, which is that of Text Generation Inference."""

    error: str
    error_type: str


class OwnDialect:
    """The gateway's own routes: health, models, metrics, pages."""

    name = "llmkernel"

    def reply(self, failure: Failure) -> Reply:
        """`{"error": message, "error_type": code}`."""
        body = encode(ErrorBody(failure.message, failure.code))
        return Reply(failure.status, body, headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """The same as an event."""
        return sse(self.reply(failure).body)


def encode(value: Any) -> bytes:
    """JSON."""
    return msgspec.json.encode(value)


def sse(data: bytes, event: str = "") -> bytes:
    """One server-sent event. JSON has no line breaks of its own, so one `data:` line does."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + data + b"\n\n"


OWN = OwnDialect()
