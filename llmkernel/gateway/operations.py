"""The gateway's own routes for whoever runs it: metrics, status, the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.gateway.dialects import Reply
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.metrics import CONTENT_TYPE
from llmkernel.gateway.pages import HTML_HEADERS, docs_page, status_page
from llmkernel.gateway.recent import Past
from llmkernel.gateway.routes import Route


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at a glance."""

    name: str
    model: str
    state: str
    device: str
    dtype: str
    quantization: str
    context_length: int
    uptime: float
    running: int
    waiting: int
    max_concurrent: int
    queue: int
    memory_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    blocks: int
    free_blocks: int
    tokens_per_second: float
    speeds: list[float]
    """Tokens of each of the last seconds, oldest first."""
    unloads_after: float | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the status page shows."""

    version: str
    workers: list[WorkerStatus]
    loading: dict[str, str]
    """Workers on their way up, and how far they are."""
    unloaded: dict[str, str]
    """Models that a request would have loaded; with why the last load failed where it did."""
    in_flight: int
    most_in_flight: int
    requests: list[Past]


async def metrics(exchange: Exchange) -> None:
    """Prometheus text."""
    exchange.reply(Reply(200, exchange.gateway.metrics.page(), CONTENT_TYPE))


async def status(exchange: Exchange) -> None:
    """What the status page shows, as JSON."""
    exchange.answer(overview(exchange))


async def root(exchange: Exchange) -> None:
    """The status page for a browser; for everybody else TGI's health: 200 and nothing."""
    if "text/html" in exchange.header("Accept"):
        exchange.reply(Reply(200, status_page(), "text/html; charset=utf-8", HTML_HEADERS))
    else:
        exchange.reply(Reply(200, b"", "text/plain; charset=utf-8"))


async def openapi(exchange: Exchange) -> None:
    """The OpenAPI document of every route."""
    from llmkernel.gateway.openapi import document

    exchange.reply(Reply(200, document()))


async def docs(exchange: Exchange) -> None:
    """The same for people, without any other site."""
    from llmkernel.gateway.openapi import document

    page = docs_page(msgspec.json.decode(document()))
    exchange.reply(Reply(200, page, "text/html; charset=utf-8", HTML_HEADERS))


def overview(exchange: Exchange) -> Status:
    """The state of a gateway and of the workers it serves."""
    from llmkernel._version import __version__

    gateway = exchange.gateway
    replicas = sorted(gateway.models.replicas.values(), key=lambda replica: replica.order)
    return Status(
        version=__version__,
        workers=[_worker(each, gateway.recent.speeds.get(each.name, ())) for each in replicas],
        loading={
            name: loading.progress.stage if loading.progress else "starting"
            for name, loading in gateway.models.loader.loads.items()
        },
        unloaded=gateway.models.unloaded(),
        in_flight=gateway.permits.taken,
        most_in_flight=gateway.permits.most,
        requests=list(gateway.recent.requests),
    )


def _worker(replica: Any, speeds: Any) -> WorkerStatus:
    from llmkernel.protocol import Load, ModelInfo

    report = replica.report
    load = report.load if report is not None else Load()
    model = (report.model if report is not None else None) or ModelInfo(model=replica.model)
    state = "leaving" if replica.leaving else "unresponsive" if replica.silent else None
    return WorkerStatus(
        name=replica.name,
        model=replica.model,
        state=state or (report.state if report is not None else "loading"),
        device=model.device,
        dtype=model.dtype,
        quantization=model.quantization,
        context_length=model.context_length,
        uptime=report.uptime if report is not None else 0.0,
        running=load.running,
        waiting=load.waiting,
        max_concurrent=model.max_concurrent,
        queue=model.queue,
        memory_bytes=(report.device_bytes or report.rss_bytes) if report is not None else 0,
        weights_bytes=model.weights_bytes,
        kv_cache_bytes=model.kv_cache_bytes,
        blocks=max(model.kv_blocks - 1, 0),  # the first one belongs to nobody
        free_blocks=load.free_blocks,
        tokens_per_second=load.tokens_per_second,
        speeds=list(speeds),
        unloads_after=replica.keep,
    )


ROUTES = [
    Route(method="GET", path="/", act=root, summary="The status page; empty for programs"),
    Route(method="GET", path="/metrics", act=metrics, summary="Prometheus metrics"),
    Route(
        method="GET",
        path="/llmkernel/status",
        act=status,
        summary="Models, memory, batch, queue, recent requests",
        answer=Status,
    ),
    Route(method="GET", path="/api-doc/openapi.json", act=openapi, summary="This document"),
    Route(method="GET", path="/docs", act=docs, summary="This document for people", hidden=True),
]
