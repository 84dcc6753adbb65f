"""POST /v1/completions."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from llmkernel.client import AsyncClient
from llmkernel.gateway import times
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.openai import completion_answer, completion_request
from llmkernel.gateway.openai.completion_request import CompletionRequest
from llmkernel.gateway.openai.completion_stream import CompletionStream
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.translation.ask import Ask
from llmkernel.gateway.translation.merging import merged, together
from llmkernel.gateway.translation.naming import Head, new_head


async def complete(exchange: Exchange) -> None:
    """What follows after each prompt."""
    request = exchange.read(CompletionRequest)
    asks = completion_request.asks(request, exchange.gateway.settings.limits.max_client_batch_size)
    exchange.validated()
    with exchange.permits(sum(ask.params.width for ask in asks), _several(request)):
        async with exchange.lease(request.model) as replica:
            answer = _stream if request.stream else _whole
            await answer(exchange, request, asks, replica, new_head("cmpl-", replica.model))


def _several(request: CompletionRequest) -> str:
    """The field that most of the answers come from."""
    if (request.best_of or 1) > 1:
        return "best_of"
    return "n" if (request.n or 1) > 1 else "prompt"


async def _whole(
    exchange: Exchange, request: CompletionRequest, asks: list[Ask], replica: Replica, head: Head
) -> None:
    client = client_for(exchange, replica, request.cache_salt)
    generations = await together(exchange.counted(ask.whole(client)) for ask in asks)
    echoes = await _echoes(asks, client) if request.echo else None
    more = times.ended(exchange.record, replica, _characters(asks))
    exchange.answer(completion_answer.answer(head, generations, echoes), headers=more)


async def _stream(
    exchange: Exchange, request: CompletionRequest, asks: list[Ask], replica: Replica, head: Head
) -> None:
    client = client_for(exchange, replica, request.cache_salt)
    usage = completion_request.wants_usage(request)
    chunks = CompletionStream(head, asks[0].params.n, include_usage=usage)
    echoes = chunks.echo(await _echoes(asks, client)) if request.echo else []
    out = exchange.stream()
    out.headers(times.begun(replica, _characters(asks)))
    streams = [ask.stream(client) for ask in asks]
    async with exchange.reading(*streams), aclosing(merged(streams)) as deltas:
        async for number, delta in deltas:
            for chunk in [*echoes, *chunks.delta(number, delta)]:
                await out.event(chunk)
            echoes = []
    generations = [stream.generation for stream in streams]
    for chunk in [*echoes, *chunks.end(generations)]:
        await out.event(chunk)
    await out.done()


def _characters(asks: list[Ask]) -> int:
    return sum(ask.characters for ask in asks)


async def _echoes(asks: list[Ask], client: AsyncClient) -> list[str]:
    """The texts of the prompts, of which some may be token ids."""
    text = partial(client.detokenize, skip_special_tokens=False)
    return [ask.prompt if isinstance(ask.prompt, str) else await text(ask.prompt) for ask in asks]
