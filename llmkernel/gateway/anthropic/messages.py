"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import msgspec

from llmkernel.gateway.anthropic import answer as answers
from llmkernel.gateway.anthropic import request as requests
from llmkernel.gateway.anthropic.request import Conversation, MessagesRequest
from llmkernel.gateway.anthropic.stream import MessageStream
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.translation.ask import Ask
from llmkernel.gateway.translation.naming import Head, new_head


class TokenCount(msgspec.Struct):
    """The tokens of a conversation."""

    input_tokens: int


async def create_message(exchange: Exchange) -> None:
    """The next turn of a conversation."""
    request = exchange.read(MessagesRequest)
    ask = await exchange.apart(requests.ask, request)
    exchange.validated()
    async with exchange.lease(request.model) as replica:
        head = new_head("msg_", replica.model)
        if request.stream:
            await _stream(exchange, ask, replica, head)
            return
        generation = await exchange.counted(ask.whole(client_for(exchange, replica)))
    exchange.answer(answers.answer(head, generation))


async def count_tokens(exchange: Exchange) -> None:
    """The tokens of a conversation as the model would read it.

    One that ends in the assistant's turn is counted as if that turn were closed.
    """
    request = exchange.read(Conversation)
    turns = await exchange.apart(requests.turns, request)
    async with exchange.lease(request.model) as replica:
        exchange.answer(TokenCount(len(await replica.client.tokenize(turns))))


async def _stream(exchange: Exchange, ask: Ask, replica: Replica, head: Head) -> None:
    out = exchange.stream()
    deltas = ask.stream(client_for(exchange, replica))
    async with exchange.reading(deltas):
        # clients show the size of the prompt from the first event on
        tokens = await replica.client.tokenize(ask.messages or [])
        events = MessageStream(head, len(tokens))
        first = events.begin()
        async for delta in deltas:
            for event in [*first, *events.delta(delta)]:
                await out.event(event, event.type)
            first = []
    for event in [*first, *events.end(deltas.generation)]:
        await out.event(event, event.type)
