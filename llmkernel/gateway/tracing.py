"""OpenTelemetry spans, where the extra `otel` is installed and a collector was named.

A request's span continues the caller's `traceparent`. Below it are a span each for the
time in a worker's queue, for prefill and for decode, of every answer. They are made here, from
the times and the numbers of the engine's steps that come with the worker's last message:
docs/architecture.md says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from llmkernel._version import __version__
from llmkernel.errors import missing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from llmkernel.gateway.record import Record
    from llmkernel.protocol import Timings

_NANO = 10**9


class Tracer:
    """Makes a span for each request; without a provider it does nothing."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Any = None
        self._extract: Any = None
        if provider is not None:
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            self._tracer = provider.get_tracer("llmkernel.gateway", __version__)
            self._extract = TraceContextTextMapPropagator().extract

    @contextmanager
    def request(self, record: Record, headers: Mapping[str, str]) -> Iterator[None]:
        """A span around a request, below the one that its `traceparent` names."""
        if self._tracer is None:
            yield
            return
        span, began = self._begin(record, headers), time.monotonic()
        try:
            yield
        finally:
            self._end(span, record, began)

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()

    def _begin(self, record: Record, headers: Mapping[str, str]) -> Any:
        from opentelemetry.trace import SpanKind

        names = ("traceparent", "tracestate")
        context = self._extract({name: headers[name] for name in names if name in headers})
        return self._tracer.start_span(
            f"{record.method} {record.route}",
            context=context,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": record.method,
                "http.route": record.route,
                "llmkernel.request_id": record.id,
            },
        )

    def _end(self, span: Any, record: Record, began: float) -> None:
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute("llmkernel.outcome", record.outcome or "ok")
        if record.model:
            span.set_attribute("gen_ai.request.model", record.model)
            span.set_attribute("llmkernel.worker", record.worker)
            span.set_attribute("gen_ai.usage.input_tokens", record.prompt_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", record.generated_tokens)
        if record.outcome not in ("", "ok"):
            span.set_status(Status(StatusCode.ERROR, record.outcome))
        for timings in record.answers:
            if timings.queue or timings.first_step:  # a worker that died tells nothing
                self._phases(span, record, timings, began)
        span.end()

    def _phases(self, span: Any, record: Record, timings: Timings, began: float) -> None:
        """One answer's times, one after the other from when the worker was asked for it.

        `began` is when the span of the request was, on the monotonic clock.

        The two clocks are not compared: the moment that a message takes
        to the worker is missing before the first of them.
        """
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        sent = max(record.asked, record.began + record.validation) - began
        at = span.start_time + int(max(sent, 0.0) * _NANO)
        first, last = timings.first_step, timings.last_step
        for name, seconds, steps in (
            ("queue", timings.queue, {}),
            ("prefill", timings.prefill, {"llmkernel.step.first": first} if first else {}),
            ("decode", timings.decode, {"llmkernel.step.last": last} if last else {}),
        ):
            child = self._tracer.start_span(
                f"llmkernel.{name}",
                context=context,
                start_time=at,
                attributes={"llmkernel.worker": record.worker, **steps},
            )
            at += int(seconds * _NANO)
            child.end(end_time=at)


def tracer_to(endpoint: str | None, service: str) -> Tracer:
    """A tracer that sends to a collector. Raises MissingDependency without the extra."""
    if endpoint is None:
        return Tracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise missing("opentelemetry", "otel") from None
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=address_for_traces(endpoint))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def address_for_traces(endpoint: str) -> str:
    """The address that spans are sent to: OTLP's own path where `endpoint` has none.

    The exporter takes what it is given as it is, and a collector has nothing at its root.
    """
    at = urlsplit(endpoint)
    return urlunsplit(at._replace(path="/v1/traces")) if at.path in ("", "/") else endpoint
