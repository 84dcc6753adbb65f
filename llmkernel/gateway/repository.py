"""Triton's routes for models: which there are, whether they are ready, loading, unloading."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel._version import __version__
from llmkernel.errors import InvalidRequest, WorkerNotFound
from llmkernel.gateway.dialects import Reply, encode, sse
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import Failure
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.routes import Route
from llmkernel.gateway.unknown import shown
from llmkernel.gateway.unsupported import unsupported

VERSION = "1"
"""Models have one version here, as Triton counts them."""
_NO_TENSORS = "Tensors are not taken: POST /generate, or a route of OpenAI's API, takes text."


class TritonError(msgspec.Struct, frozen=True):
    """Its error."""

    error: str


class TritonDialect:
    """`{"error": message}`; 400 for what TGI and others call 422 or 409."""

    name = "triton"

    def reply(self, failure: Failure) -> Reply:
        """The answer for a failure."""
        status = 400 if failure.status in (409, 422) else failure.status
        return Reply(status, encode(TritonError(failure.message)), headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """Never used: nothing here streams."""
        return sse(self.reply(failure).body)


TRITON = TritonDialect()


class IndexRequest(msgspec.Struct, frozen=True):
    """Which models to list."""

    ready: bool = False
    """Only those that take requests."""


class IndexEntry(msgspec.Struct, frozen=True):
    """A model that runs or could."""

    name: str
    version: str
    state: str
    reason: str


class LoadRequest(msgspec.Struct, frozen=True):
    """Nothing has to be said; `parameters.config` is refused, as settings are the operator's."""

    parameters: dict[str, Any] | None = None


class UnloadRequest(msgspec.Struct, frozen=True):
    """Nothing has to be said; models here have no dependents."""

    parameters: dict[str, Any] | None = None


class ServerMetadata(msgspec.Struct, frozen=True):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Any]
    outputs: list[Any]


class Live(msgspec.Struct, frozen=True):
    """Whether something is up."""

    live: bool


async def metadata(exchange: Exchange) -> None:
    """The server itself."""
    exchange.answer(ServerMetadata("llmkernel", __version__, ["model_repository"]))


async def live(exchange: Exchange) -> None:
    """Whether the gateway runs."""
    exchange.answer(Live(True))


async def ready(exchange: Exchange) -> None:
    """200 while some model takes requests or would be loaded for one, 503 also in a stop."""
    up = exchange.gateway.up
    exchange.answer(Live(up), 200 if up else 503)


async def model_ready(exchange: Exchange) -> None:
    """Whether a model takes requests, which it does after its warm-up."""
    found = _find(exchange)
    up = any(replica.ready for replica in found)
    exchange.answer(Live(up), 200 if up else 503)


async def model(exchange: Exchange) -> None:
    """What a model is."""
    first = _find(exchange)[0]
    exchange.answer(
        ModelMetadata(
            name=first.model,
            versions=[VERSION],
            platform="llmkernel",
            inputs=[{"name": "text_input", "datatype": "BYTES", "shape": [1]}],
            outputs=[{"name": "text_output", "datatype": "BYTES", "shape": [-1]}],
        )
    )


async def index(exchange: Exchange) -> None:
    """Models that run, that are on their way up, and that a request may have loaded."""
    wanted = exchange.read(IndexRequest) if exchange.body else IndexRequest()
    models = exchange.gateway.models
    entries = [_entry(replica) for replica in models.replicas.values()]
    running = {replica.model for replica in models.replicas.values()}
    loading = {each.config.model for each in models.loader.loads.values()}
    entries += [IndexEntry(name, VERSION, "LOADING", "") for name in sorted(loading - running)]
    entries += [
        IndexEntry(name, VERSION, "UNAVAILABLE", why or "unloaded")
        for name, why in sorted(models.unloaded().items())
    ]
    exchange.answer([each for each in entries if not wanted.ready or each.state == "READY"])


async def load(exchange: Exchange) -> None:
    """Start a model of the allow-list, and wait until it is ready."""
    _no_settings(exchange.read(LoadRequest) if exchange.body else LoadRequest())
    models = exchange.gateway.models
    await models.load_named(models.allowed(exchange.path["model"]))
    exchange.reply(Reply(200, b""))


async def unload(exchange: Exchange) -> None:
    """Stop a model once its work is done."""
    if exchange.body:
        exchange.read(UnloadRequest)
    await exchange.gateway.models.unload(exchange.path["model"])
    exchange.reply(Reply(200, b""))


def _entry(replica: Replica) -> IndexEntry:
    if replica.ready:
        return IndexEntry(replica.model, VERSION, "READY", "")
    state = "UNLOADING" if replica.leaving else "LOADING"
    return IndexEntry(replica.model, VERSION, state, "unresponsive" if replica.silent else "")


def _find(exchange: Exchange) -> list[Replica]:
    models, name = exchange.gateway.models, exchange.path["model"]
    version = exchange.path.get("version", VERSION)
    if version != VERSION:
        raise WorkerNotFound(f"Models have version {VERSION} alone here, not {shown(version)}.")
    found = [each for each in models.serving(name) if name in (each.name, each.model)]
    if not found:
        raise models.absent(name)
    return found


def _no_settings(request: LoadRequest) -> None:
    if request.parameters:
        raise InvalidRequest(
            "Settings of a model are given to `llmkernel serve`; leave parameters out.",
            field="parameters",
        )


ROUTES = [
    Route(
        method="GET",
        path="/v2",
        act=metadata,
        summary="The server itself",
        dialect=TRITON,
        answer=ServerMetadata,
    ),
    Route(
        method="GET",
        path="/v2/health/live",
        act=live,
        summary="Whether the gateway runs",
        dialect=TRITON,
        answer=Live,
    ),
    Route(
        method="GET",
        path="/v2/health/ready",
        act=ready,
        summary="Whether some model takes requests, or would be loaded for one",
        dialect=TRITON,
        answer=Live,
    ),
    Route(
        method="POST",
        path="/v2/repository/index",
        act=index,
        summary="Models that run or may be loaded",
        dialect=TRITON,
        body=IndexRequest,
        answer=list[IndexEntry],
        any_content_type=True,
    ),
    Route(
        method="POST",
        path="/v2/repository/models/{model*}/load",
        act=load,
        summary="Start a model and wait until it is ready",
        dialect=TRITON,
        body=LoadRequest,
        any_content_type=True,
    ),
    Route(
        method="POST",
        path="/v2/repository/models/{model*}/unload",
        act=unload,
        summary="Stop a model once its work is done",
        dialect=TRITON,
        body=UnloadRequest,
        any_content_type=True,
    ),
    Route(
        method="GET",
        path="/v2/models/{model*}/versions/{version}/ready",
        act=model_ready,
        summary="Whether a model takes requests; it has one version",
        dialect=TRITON,
        answer=Live,
    ),
    Route(
        method="GET",
        path="/v2/models/{model*}/ready",
        act=model_ready,
        summary="Whether a model takes requests",
        dialect=TRITON,
        answer=Live,
    ),
    *[
        Route(
            method="POST",
            path=f"/v2/models/{{model*}}{version}/infer",
            act=unsupported(_NO_TENSORS),
            summary="Refused: not supported",
            dialect=TRITON,
            any_content_type=True,
        )
        for version in ("", "/versions/{version}")
    ],
    Route(
        method="GET",
        path="/v2/models/{model*}/versions/{version}",
        act=model,
        summary="What a model is; it has one version",
        dialect=TRITON,
        answer=ModelMetadata,
    ),
    Route(
        method="GET",
        path="/v2/models/{model*}",
        act=model,
        summary="What a model is",
        dialect=TRITON,
        answer=ModelMetadata,
    ),
]
