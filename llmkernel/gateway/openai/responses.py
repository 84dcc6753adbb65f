"""/v1/responses: make one, streamed or whole; look at one that is kept; let it go."""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

import msgspec

from llmkernel.client import AsyncClient
from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest
from llmkernel.gateway.dialects import sse
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import Failure, Refusal
from llmkernel.gateway.gateway import Gateway
from llmkernel.gateway.openai import response as shapes
from llmkernel.gateway.openai import response_items, response_request
from llmkernel.gateway.openai.dialect import error_of
from llmkernel.gateway.openai.response import Response
from llmkernel.gateway.openai.response_request import ResponseRequest
from llmkernel.gateway.openai.response_store import Kept, ResponseStore
from llmkernel.gateway.openai.response_stream import ResponseStream
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.translation.ask import Ask
from llmkernel.gateway.translation.naming import new_head, new_id
from llmkernel.protocol import ChatMessage

_stores: WeakKeyDictionary[Gateway, ResponseStore] = WeakKeyDictionary()


class Deleted(msgspec.Struct):
    """A response that was let go."""

    id: str
    deleted: bool = True
    object: Literal["response"] = "response"


class InputTokens(msgspec.Struct):
    """How long a request is. A last turn of the assistant's counts as closed."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


async def create_response(exchange: Exchange) -> None:
    """The next turn after what a request and the responses before it say."""
    request = exchange.read(ResponseRequest)
    before = _before(exchange, request)
    new = await exchange.apart(response_request.turns, request)
    ask = response_request.ask(request, before, new)
    exchange.validated()
    turns = [*before, *new]
    async with exchange.lease(request.model) as replica:
        head = new_head("resp_", replica.model)
        response = shapes.begun(head, request, ask.params)
        answer = _stream if request.stream else _whole
        client = client_for(exchange, replica, request.cache_salt)
        await answer(exchange, ask, client, response, turns)


async def retrieve_response(exchange: Exchange) -> None:
    """A response that is kept. Raises Refusal."""
    exchange.answer(_kept(exchange, exchange.path["response"], "response_id").response)


async def delete_response(exchange: Exchange) -> None:
    """Let a response go. Raises Refusal where there is none."""
    name = exchange.path["response"]
    if not _store(exchange).remove(exchange.principal, name):
        raise _unknown("response_id")
    exchange.answer(Deleted(name))


async def list_input_items(exchange: Exchange) -> None:
    """What a response that is kept answered. Raises Refusal and InvalidRequest."""
    kept = _kept(exchange, exchange.path["response"], "response_id")
    exchange.answer(response_items.page(exchange, kept))


async def cancel_response(exchange: Exchange) -> None:
    """Nothing to cancel: responses that are made in the background are refused from the start."""
    _kept(exchange, exchange.path["response"], "response_id")
    raise InvalidRequest(
        "Only a response that is made in the background can be cancelled, and there are none "
        "here. Close the connection of the one that streams.",
        field="response_id",
    )


async def count_input(exchange: Exchange) -> None:
    """The tokens that a request would have read. Raises as creating it would."""
    request = exchange.read(ResponseRequest)
    before = _before(exchange, request)
    new = await exchange.apart(response_request.turns, request)
    ask = response_request.ask(request, before, new)
    exchange.validated()
    async with exchange.lease(request.model) as replica:
        tokens = await replica.client.tokenize(ask.messages or [])
    exchange.answer(InputTokens(len(tokens)))


async def _whole(
    exchange: Exchange, ask: Ask, client: AsyncClient, response: Response, turns: list[ChatMessage]
) -> None:
    generation = await exchange.counted(ask.whole(client))
    response = shapes.ended(response, new_id("msg_"), generation)
    _keep(exchange, response, turns, generation)
    exchange.answer(response)


async def _stream(
    exchange: Exchange, ask: Ask, client: AsyncClient, response: Response, turns: list[ChatMessage]
) -> None:
    events = ResponseStream(response, new_id("msg_"))

    def last_words(failure: Failure) -> bytes:
        broken = events.fail(error_of(failure))
        return b"".join(sse(msgspec.json.encode(event), event.type) for event in broken)

    # the numbers of events go on, which the dialect's last words know nothing of
    exchange.last_words = last_words
    out = exchange.stream()
    first = events.begin()
    deltas = ask.stream(client)
    async with exchange.reading(deltas):
        async for delta in deltas:
            for event in [*first, *events.delta(delta)]:
                await out.event(event, event.type)
            first = []
    for event in [*first, *events.end(deltas.generation)]:
        await out.event(event, event.type)
    _keep(exchange, events.response, turns, deltas.generation)


def _before(exchange: Exchange, request: ResponseRequest) -> list[ChatMessage]:
    if request.previous_response_id is None:
        return []
    return _kept(exchange, request.previous_response_id, "previous_response_id").turns


def _keep(
    exchange: Exchange, response: Response, turns: list[ChatMessage], generation: Generation
) -> None:
    if not response.store:
        return
    turns = [*turns]
    begun = turns.pop().content if turns[-1].role == "assistant" else ""  # it was gone on with
    written = ChatMessage(role="assistant", content=begun + generation.text)
    _store(exchange).put(exchange.principal, response, [*turns, written], begun)


def _kept(exchange: Exchange, name: str, field: str) -> Kept:
    kept = _store(exchange).get(exchange.principal, name)
    if kept is None:
        raise _unknown(field)
    return kept


def _store(exchange: Exchange) -> ResponseStore:
    return _stores.setdefault(exchange.gateway, ResponseStore())


def _unknown(field: str) -> Refusal:
    return Refusal(
        "not_found",
        "There is no such response: it was not stored, or had to make room. Send the whole "
        "conversation as input.",
        field=field,
    )
