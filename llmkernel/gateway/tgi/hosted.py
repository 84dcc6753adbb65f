"""The routes of hosting services: SageMaker's /invocations, Vertex's /vertex."""

from __future__ import annotations

import asyncio
from typing import Any

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import Refusal
from llmkernel.gateway.routes import Act
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.tgi.generate import compatible, whole
from llmkernel.gateway.tgi.schemas import (
    CompatRequest,
    GenerateRequest,
    VertexInstance,
    VertexRequest,
    VertexResponse,
)
from llmkernel.gateway.tgi.texts import conversation

_BY_KEY = {"messages": "/v1/chat/completions", "prompt": "/v1/completions"}


async def invocations(exchange: Exchange) -> None:
    """A body of /, /v1/chat/completions or /v1/completions, told apart by its keys."""
    body = exchange.read(dict[str, Any])
    for key, path in _BY_KEY.items():
        if key in body and "inputs" not in body:
            await _act(path)(exchange)
            return
    await compatible(exchange, exchange.read(CompatRequest))


async def vertex(exchange: Exchange) -> None:
    """Several prompts or conversations, answered in their order."""
    request = exchange.read(VertexRequest)
    limit = exchange.gateway.settings.limits.max_client_batch_size
    if not 0 < len(request.instances) <= limit:
        raise InvalidRequest(
            f"`instances` must have 1 to {limit} entries. Given: {len(request.instances)}",
            field="instances",
        )
    with exchange.permits(len(request.instances), "instances"):
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(_one(exchange, each)) for each in request.instances]
    exchange.answer(VertexResponse([answer.result() for answer in answers]))


async def _one(exchange: Exchange, instance: VertexInstance) -> str:
    if (instance.inputs is None) == (instance.messages is None):
        raise Refusal("shape", "an instance has either inputs or messages", field="instances")
    if instance.inputs is not None:
        request = GenerateRequest(inputs=instance.inputs, parameters=instance.parameters)
        return (await whole(exchange, request, full_text=False))[0].generated_text
    if instance.parameters is not None:
        raise InvalidRequest(
            "`parameters` go with `inputs`, not with `messages`", field="parameters"
        )
    async with exchange.lease() as replica:
        client = client_for(exchange, replica)
        answer = await exchange.counted(client.chat(conversation(instance.messages or [])))
    return answer.text


def _act(path: str) -> Act:
    from llmkernel.gateway.table import all_routes

    for route in all_routes():
        if route.path == path and route.method == "POST":
            return route.act
    raise Refusal("not_found", f"This gateway has no {path}.")
