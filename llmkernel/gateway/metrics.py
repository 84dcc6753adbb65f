"""Prometheus metrics under Text Generation Inference's names, and our own where it has none.

prometheus_client writes the format and counts the buckets: Jupyter Server brings it
anyway, and escaping by hand is where such pages go wrong. What a worker counts is read
from its last report when the page is asked for. Labels come from bounded sets: routes of
the table, outcomes, and the models that run; never a text of a request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmkernel.errors import (
    TABLE,
    InvalidRequest,
    LLMKernelError,
    RequestEnded,
    StartFailed,
    Unavailable,
    WorkerNotFound,
)
from llmkernel.gateway.worker_metrics import WorkerMetrics
from llmkernel.parts import STEP_SECONDS

if TYPE_CHECKING:
    from llmkernel.gateway.admission import Permits
    from llmkernel.gateway.models import Models
    from llmkernel.gateway.pulse import Pulse
    from llmkernel.gateway.record import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = list(STEP_SECONDS)
TOKENS = [float(2**k) for k in range(18)]
_KEPT_OUT = ("unauthorized", "forbidden")
"""Outcomes of those who may not ask: their requests are none, as in TGI, and alarm nobody."""
_CAUSES = {
    "overloaded": "overloaded",
    "dropped": "dropped",
    "slow_consumer": "dropped",
    "internal": "incomplete",
    "template_error": "template",
}
_CAUSES_OF_CLASSES: tuple[tuple[type[LLMKernelError], str], ...] = (
    (InvalidRequest, "validation"),
    (WorkerNotFound, "validation"),
    (RequestEnded, "generation"),
    (Unavailable, "healthcheck"),
    (StartFailed, "healthcheck"),
)

_TOTAL = re.compile(rb"^((?:# (?:HELP|TYPE) )?tgi_\w+)_total(?=[ {])", re.MULTILINE)
"""The ending that prometheus_client gives all counters and TGI gives none of its own."""


def cause(outcome: str) -> str:
    """What TGI calls an outcome: `generation` is what broke after a worker had begun."""
    if outcome in _CAUSES:
        return _CAUSES[outcome]
    known = TABLE.get(outcome)
    if known is None:  # what is wrong with a request as HTTP
        return "validation"
    kinds = (word for kind, word in _CAUSES_OF_CLASSES if issubclass(known.exception, kind))
    return next(kinds, "incomplete")


class Metrics:
    """All metrics of one gateway, in a registry of its own."""

    def __init__(self, models: Models, permits: Permits, pulse: Pulse) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("tgi_request_count", "Requests", registry=registry)
        self._successes = Counter("tgi_request_success", "Requests answered", registry=registry)
        self._failures = Counter(
            "tgi_request_failure", "Requests that failed", ["err"], registry=registry
        )
        self._durations = {
            name: Histogram(
                f"tgi_request_{name}", f"{help_text}, seconds", buckets=SECONDS, registry=registry
            )
            for name, help_text in _DURATIONS.items()
        }
        self._counts = {
            name: Histogram(f"tgi_request_{name}", help_text, buckets=TOKENS, registry=registry)
            for name, help_text in _COUNTS.items()
        }
        self._http = Counter(
            "llmkernel_http_requests",
            "HTTP requests by route and status",
            ["dialect", "route", "status"],
            registry=registry,
        )
        self._first = Histogram(
            "llmkernel_time_to_first_byte",
            "Seconds to the first byte of a streamed answer",
            buckets=SECONDS,
            registry=registry,
        )
        Gauge(
            "llmkernel_loop_block_seconds",
            "Longest delay of the gateway's loop since this page was last read",
            registry=registry,
        ).set_function(pulse.take_late)
        Gauge(
            "llmkernel_loop_busy_seconds",
            "Most processor time of the loop between two beats since this page was last read",
            registry=registry,
        ).set_function(pulse.take_busy)
        registry.register(WorkerMetrics(models, permits))

    def count(self, record: Record) -> None:
        """Count a request that is over."""
        route = record.route or "unknown"
        self._http.labels(record.dialect, route, str(record.status)).inc()
        if not record.generates or record.outcome in _KEPT_OUT:
            return
        self._requests.inc()
        if record.outcome == "ok":
            self._successes.inc()
        else:
            self._failures.labels(cause(record.outcome)).inc()
        if record.outcome == "ok" and record.generated_tokens:
            self._measure(record)

    def page(self) -> bytes:
        """The page that a Prometheus server reads."""
        return _TOTAL.sub(rb"\1", generate_latest(self._registry))

    def _measure(self, record: Record) -> None:
        seconds = {
            "duration": record.seconds,
            "validation_duration": record.validation,
            "queue_duration": record.queue,
            "inference_duration": record.inference,
            "mean_time_per_token_duration": record.inference / record.generated_tokens,
        }
        tokens = {
            "input_length": record.prompt_tokens,
            "generated_tokens": record.generated_tokens,
            "max_new_tokens": record.max_new_tokens or record.generated_tokens,
            "skipped_tokens": 0,
        }
        for name, value in seconds.items():
            self._durations[name].observe(value)
        for name, value in tokens.items():
            self._counts[name].observe(value)
        if record.first_byte is not None:
            self._first.observe(record.first_byte - record.began)


_DURATIONS = {
    "duration": "From a request's arrival to its answer",
    "validation_duration": "Until a request was understood",
    "queue_duration": "In the worker's queue",
    "inference_duration": "Prefill and decode",
    "mean_time_per_token_duration": "Inference for each token",
}
_COUNTS = {
    "input_length": "Tokens of prompts",
    "generated_tokens": "Tokens of answers",
    "max_new_tokens": "Tokens that answers might have had",
    "skipped_tokens": "Tokens that were guessed; nothing guesses here yet",
}
