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
    """One server-sent event of JSON, which is one `data:` line."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + _on_one_line(data) + b"\n\n"


def line(data: bytes) -> bytes:
    """One line of a stream of JSON."""
    return _on_one_line(data) + b"\n"


def _on_one_line(data: bytes) -> bytes:
    """JSON without a character that anybody takes for the end of a line.

    Encoded JSON has no control characters, but U+0085, U+2028 and U+2029 as they are, at which
    Python's `splitlines` cuts, and with it the clients that read with httpx's `iter_lines`.
    """
    if not data.isascii():
        for raw, escaped in _BREAKS:
            data = data.replace(raw, escaped)
    return data


_BREAKS = tuple(
    (mark.encode(), f"\\u{ord(mark):04x}".encode()) for mark in ("\x85", "\u2028", "\u2029")
)


OWN = OwnDialect()
