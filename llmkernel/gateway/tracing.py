"""OpenTelemetry spans, where the extra `otel` is there and its environment names a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tornado.httputil import HTTPHeaders

from llmkernel.gateway.record import Record


class Tracer:
    """Makes a span for each request."""

    @contextmanager
    def request(self, record: Record, headers: HTTPHeaders) -> Iterator[None]:  # noqa: ARG002
        """A span around a request, below the one that its `traceparent` names."""
        yield

    def close(self) -> None:
        """Send what is left."""
