"""The models that there are: list, show, and why they are not copied or deleted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from llmkernel._version import __version__
from llmkernel.errors import UnsupportedField
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.models import Models
from llmkernel.gateway.ollama.names import named, plain
from llmkernel.gateway.replica import Replica
from llmkernel.protocol import ModelInfo

_EPOCH = datetime.fromtimestamp(0, UTC).isoformat()
_CAPABILITIES = ["completion"]
_FOR_EVER = timedelta(days=365 * 100)


class Details(msgspec.Struct):
    """What kind of model it is."""

    family: str = ""
    families: list[str] = []
    parameter_size: str = ""
    quantization_level: str = ""
    format: str = "safetensors"
    parent_model: str = ""


class Tag(msgspec.Struct, kw_only=True):
    """A model that a request may name."""

    name: str
    model: str
    modified_at: str = _EPOCH
    """When it was changed is not known."""
    size: int = 0
    digest: str
    details: Details


class Tags(msgspec.Struct):
    """All of them, the default one first."""

    models: list[Tag]


class Running(Tag, kw_only=True):
    """A model in memory."""

    expires_at: str
    size_vram: int
    context_length: int


class RunningList(msgspec.Struct):
    """All models in memory."""

    models: list[Running]


class ShowRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model to show."""

    model: str | None = None
    name: str | None = None
    """The older name of `model`."""
    verbose: bool | None = None


class CopyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model to give another name."""

    source: str
    destination: str


class DeleteRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model to delete."""

    model: str | None = None
    name: str | None = None
    """The older name of `model`."""


class Shown(msgspec.Struct, kw_only=True):
    """A model in detail."""

    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str = _EPOCH
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    license: str = ""


class Version(msgspec.Struct):
    """The version of this project."""

    version: str = __version__


async def tags(exchange: Exchange) -> None:
    """The models that a request may name."""
    models = exchange.gateway.models
    exchange.answer(Tags([_tag(name, _info(models, name)) for name in models.names()]))


async def running(exchange: Exchange) -> None:
    """The models in memory, one entry for each worker."""
    replicas = exchange.gateway.models.replicas.values()
    exchange.answer(RunningList([_running(each) for each in replicas if each.ready]))


async def show(exchange: Exchange) -> None:
    """One model. Raises WorkerNotFound."""
    request = exchange.read(ShowRequest)
    models = exchange.gateway.models
    name = _known(models, named(request.model, request.name))
    info = _info(models, name)
    exchange.answer(
        Shown(details=_details(info), model_info=_facts(name, info), capabilities=_CAPABILITIES)
    )


async def copy(exchange: Exchange) -> None:
    """Refused. Raises WorkerNotFound for a model that there is not, as Ollama does."""
    request = exchange.read(CopyRequest)
    _known(exchange.gateway.models, request.source)
    raise UnsupportedField(
        "Models are not copied: each has the name of its worker and the id of its model. "
        "`llmkernel start MODEL --name NAME` gives one another name.",
        field="destination",
    )


async def delete(exchange: Exchange) -> None:
    """Refused: the files are the operator's. Raises WorkerNotFound for one that there is not."""
    request = exchange.read(DeleteRequest)
    _known(exchange.gateway.models, named(request.model, request.name))
    raise UnsupportedField(
        "Models are not deleted over HTTP: their files belong to whoever runs this gateway. "
        "`keep_alive: 0` without a prompt unloads one that the gateway may load.",
        field="model",
    )


async def version(exchange: Exchange) -> None:
    """The version of this project."""
    exchange.answer(Version())


def _known(models: Models, given: str) -> str:
    """The name of a model that may be named. Raises WorkerNotFound."""
    name = plain(models, given)
    if name not in models.names() and not models.serving(name):
        raise models.absent(name)
    return name


def _info(models: Models, name: str) -> ModelInfo | None:
    """What is known of a model; None where it does not run yet."""
    found = [replica for replica in models.serving(name) if replica.ready]
    return found[0].info if found else None


def _tag(name: str, info: ModelInfo | None) -> Tag:
    size = info.weights_bytes if info is not None else 0
    return Tag(name=name, model=name, size=size, digest=_digest(name), details=_details(info))


def _running(replica: Replica) -> Running:
    info = replica.info
    size = info.weights_bytes + info.kv_cache_bytes
    left = None if replica.keep is None else replica.keep - replica.idle_seconds
    expiry = _FOR_EVER if left is None else timedelta(seconds=max(0.0, left))
    return Running(
        name=replica.model,
        model=replica.model,
        size=size,
        digest=_digest(replica.model),
        details=_details(info),
        expires_at=(datetime.now(UTC) + expiry).isoformat(),
        size_vram=0 if info.device.startswith("cpu") else size,
        context_length=info.context_length,
    )


def _details(info: ModelInfo | None) -> Details:
    if info is None:
        return Details()
    family = info.architecture.lower()
    return Details(family, [family], _billions(info.parameters), info.quantization)


def _billions(parameters: int) -> str:
    if parameters >= 10**9:
        return f"{parameters / 10**9:.1f}B"
    return f"{parameters / 10**6:.1f}M"


def _facts(name: str, info: ModelInfo | None) -> dict[str, Any]:
    if info is None:
        return {"general.basename": name}
    family = info.architecture.lower()
    return {
        "general.architecture": family,
        "general.basename": name,
        "general.parameter_count": info.parameters,
        f"{family}.context_length": info.context_length,
        f"{family}.vocab_size": info.vocab_size,
    }


def _digest(name: str) -> str:
    """Something that stays the same for a model; its weights are not read for it."""
    return hashlib.sha256(name.encode()).hexdigest()
