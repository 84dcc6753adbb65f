"""GET /v1/models and /v1/models/{model}: what a request may name."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel.gateway.exchange import Exchange


class Model(msgspec.Struct):
    """A model that runs or would be loaded."""

    id: str
    created: int = 0
    """When it was made is not known."""
    owned_by: str = "llmkernel"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    """All of them, the default one first."""

    data: list[Model]
    object: Literal["list"] = "list"


async def list_models(exchange: Exchange) -> None:
    """Every model that a request may name."""
    exchange.answer(ModelList([_model(name) for name in exchange.gateway.models.names()]))


async def retrieve_model(exchange: Exchange) -> None:
    """One of them, by whatever name requests may call it. Raises WorkerNotFound."""
    models, asked = exchange.gateway.models, exchange.path["model"]
    serving = models.serving(asked)  # also for a name such as "tgi", which requests may have
    found = serving[0].model if serving else asked
    if found not in models.names():
        raise models.absent(asked)
    exchange.answer(_model(found))


def _model(name: str) -> Model:
    return Model(name, owned_by=name)
