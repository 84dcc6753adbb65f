"""What workers say of themselves, as Prometheus metrics.

Text Generation Inference counts batches: one of prompts, or one step of those that decode.
Here a step may hold both; it counts as `prefill` where it reads any prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from llmkernel.parts import STEP_PROMPTS, STEP_SECONDS
from llmkernel.protocol import Spread, StatusReport, StepReport

if TYPE_CHECKING:
    from llmkernel.gateway.admission import Permits
    from llmkernel.gateway.models import Models

_GAUGES = {
    "running": ("Sequences that run", "load.running"),
    "waiting": ("Requests that wait", "load.waiting"),
    "free_blocks": ("Free KV blocks", "load.free_blocks"),
    "cached_blocks": ("KV blocks in the prefix cache", "load.cached_blocks"),
    "tokens_per_second": ("Tokens a second, over ten seconds", "load.tokens_per_second"),
    "rss_bytes": ("Memory of the process", "rss_bytes"),
    "device_bytes": ("Memory on the accelerator", "device_bytes"),
    "weights_bytes": ("Memory of the weights", "model.weights_bytes"),
    "kv_cache_bytes": ("Memory of keys and values", "model.kv_cache_bytes"),
}
"""Name: what it says, and where a StatusReport has it."""
_COUNTERS = {
    "steps": ("Steps of the engine", "load.steps"),
    "preemptions": ("Sequences that gave up their blocks", "load.preemptions"),
    "generated_tokens": ("Tokens generated for anybody", "load.tokens_generated"),
    "prompt_tokens": ("Tokens of prompts", "load.prompt_tokens"),
    "cached_tokens": ("Prompt tokens found in the prefix cache", "load.cached_tokens"),
    "requests_finished": ("Requests finished for anybody", "load.requests_finished"),
    "requests_failed": ("Requests failed for anybody", "load.requests_failed"),
}
_STEP_COUNTS = {
    "count": ("Steps that were begun", "launched"),
    "success": ("Steps whose tokens came back", "succeeded"),
    "failure": ("Steps that broke", "failed"),
}
_STEP_TIMES = {
    "inference": "A step, seconds",
    "forward": "The device's part of a step, seconds",
    "decode": "Handing out the tokens of a step, seconds",
}
_NO_TIMES = {
    "filter": "Cutting a batch, seconds: never done, since each step is planned anew",
    "concat": "Joining batches, seconds: never done, since each step is planned anew",
}
"""Empty, so that a dashboard which asks for them shows no error."""
_METHODS = ("prefill", "decode")


class WorkerMetrics(Collector):
    """Reads the reports when the page is asked for."""

    def __init__(self, models: Models, permits: Permits) -> None:
        self._models = models
        self._permits = permits

    def describe(self) -> list[Metric]:
        """Nothing: what there is, `collect` says."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of all workers that have reported."""
        reports = self._reports()
        yield from _totals([report for _, _, report in reports])
        yield from _batches(
            [(name, model, report.steps or StepReport()) for name, model, report in reports]
        )
        for rows, kind in ((_GAUGES, GaugeMetricFamily), (_COUNTERS, CounterMetricFamily)):
            for name, (text, place) in rows.items():
                family = kind(f"llmkernel_{name}", text, labels=["worker", "model"])
                for worker, model, report in reports:
                    family.add_metric([worker, model], attrgetter(place)(report))
                yield family
        taken = self._permits.taken
        yield GaugeMetricFamily("llmkernel_workers", "Workers that are served", value=len(reports))
        yield GaugeMetricFamily("llmkernel_in_flight", "Requests that hold a permit", value=taken)

    def _reports(self) -> list[tuple[str, str, StatusReport]]:
        return [
            (name, replica.model, replica.report)
            for name, replica in self._models.replicas.items()
            if replica.report is not None and replica.report.model is not None
        ]


def _totals(reports: list[StatusReport]) -> Iterator[Metric]:
    """Text Generation Inference's gauges: over all workers, as it has one."""
    waiting = sum(report.load.waiting for report in reports)
    running = sum(report.load.running for report in reports)
    used, most = 0, 0
    for report in reports:
        if report.model is not None:
            blocks = report.model.kv_blocks - 1  # the first one belongs to nobody
            used += (blocks - report.load.free_blocks) * report.model.block_size
            most += blocks * report.model.block_size
    for name, text, value in (
        ("tgi_queue_size", "Requests that wait", waiting),
        ("tgi_batch_current_size", "Sequences that run", running),
        ("tgi_batch_current_max_tokens", "Tokens that the blocks in use can hold", used),
        ("tgi_batch_max_total_tokens", "Tokens that all blocks can hold", most),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def _batches(workers: list[tuple[str, str, StepReport]]) -> Iterator[Metric]:
    """Its metrics of batches. Each worker has its own, so that one that ends resets no sum."""
    labels = ["worker", "model"]
    for name, (text, place) in _STEP_COUNTS.items():
        counter = CounterMetricFamily(
            f"tgi_batch_inference_{name}", text, labels=["method", *labels]
        )
        for worker, model, steps in workers:
            for method in _METHODS:
                value = getattr(getattr(steps, method), place)
                counter.add_metric([method, worker, model], value)
        yield counter
    for name, text in (_STEP_TIMES | _NO_TIMES).items():
        times = HistogramMetricFamily(
            f"tgi_batch_{name}_duration", text, labels=["method", *labels]
        )
        for worker, model, steps in workers:
            for method in _METHODS:
                spread = Spread() if name in _NO_TIMES else getattr(getattr(steps, method), name)
                buckets = _buckets(spread, STEP_SECONDS)
                times.add_metric([method, worker, model], buckets, spread.sum)
        yield times
    joined = CounterMetricFamily(
        "tgi_batch_concat",
        "Steps that read prompts beside sequences that decode",
        labels=["reason", *labels],
    )
    prompts = HistogramMetricFamily(
        "tgi_batch_next_size", "Prompts in a step that reads any", labels=labels
    )
    for worker, model, steps in workers:
        joined.add_metric(["chunking", worker, model], steps.joined)
        buckets = _buckets(steps.prompts, STEP_PROMPTS)
        prompts.add_metric([worker, model], buckets, steps.prompts.sum)
    yield joined
    yield prompts


def _buckets(spread: Spread, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    counts = spread.counts or [0] * (len(bounds) + 1)
    edges = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(edges, accumulate(counts), strict=True))
