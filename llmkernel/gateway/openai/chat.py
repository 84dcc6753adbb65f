"""POST /v1/chat/completions."""

from __future__ import annotations

from llmkernel.client.streams import AsyncStream
from llmkernel.gateway import times
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.openai import chat_answer, chat_request
from llmkernel.gateway.openai.chat_request import ChatRequest
from llmkernel.gateway.openai.chat_stream import ChatStream
from llmkernel.gateway.outflow import Outflow
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.translation.naming import new_head


async def complete_chat(exchange: Exchange) -> None:
    """The next turn of a conversation."""
    request = exchange.read(ChatRequest)
    ask = await exchange.apart(chat_request.ask, request)
    exchange.validated()
    with exchange.permits(ask.params.width, "n"):
        async with exchange.lease(request.model) as replica:
            head = new_head("chatcmpl-", replica.model)
            client = client_for(exchange, replica, request.cache_salt)
            if request.stream:
                usage = chat_request.wants_usage(request)
                out = exchange.stream()
                out.headers(times.begun(replica, ask.characters))
                await _stream(
                    exchange, out, ask.stream(client), ChatStream(head, include_usage=usage)
                )
                return
            generation = await exchange.counted(ask.whole(client))
            more = times.ended(exchange.record, replica, ask.characters)
    exchange.answer(chat_answer.answer(head, generation), headers=more)


async def _stream(
    exchange: Exchange, out: Outflow, deltas: AsyncStream, chunks: ChatStream
) -> None:
    async with exchange.reading(deltas):
        async for delta in deltas:
            for chunk in chunks.delta(delta):
                await out.event(chunk)
    for chunk in chunks.end(deltas.generation):
        await out.event(chunk)
    await out.done()
