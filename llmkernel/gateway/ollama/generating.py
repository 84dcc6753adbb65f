"""POST /api/chat and /api/generate."""

from __future__ import annotations

from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.ollama import keep_alive, options
from llmkernel.gateway.ollama import request as requests
from llmkernel.gateway.ollama.answer import Kind, Lines
from llmkernel.gateway.ollama.names import plain
from llmkernel.gateway.ollama.options import Options
from llmkernel.gateway.ollama.request import ChatRequest, Common, GenerateRequest
from llmkernel.gateway.outflow import NDJSON
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.translation.ask import Ask


async def chat(exchange: Exchange) -> None:
    """The next turn of a conversation."""
    request = exchange.read(ChatRequest)
    await _answer(exchange, request, await exchange.apart(requests.ask_chat, request), "chat")


async def generate(exchange: Exchange) -> None:
    """An answer to a prompt."""
    request = exchange.read(GenerateRequest)
    await _answer(exchange, request, requests.ask_generate(request), "generate")


async def _answer(exchange: Exchange, request: Common, ask: Ask | None, kind: Kind) -> None:
    if request.keep_alive is not None:
        keep_alive.seconds(request.keep_alive)  # refused before any work is done
    exchange.validated()
    lines = Lines(kind, request.model)
    models = exchange.gateway.models
    async with exchange.lease(plain(models, request.model)) as replica:
        lines.loaded()
        options.check_context(request.options or Options(), replica.info.context_length)
        keep_alive.apply(models, replica, request.keep_alive)
        if ask is None:
            unloads = keep_alive.unloads(replica, request.keep_alive)
            exchange.answer(lines.nothing("unload" if unloads else "load"))
            return
        if not replica.info.has_chat_template:
            ask = requests.without_template(ask)
        if request.stream is not False:
            await _stream(exchange, ask, replica, lines)
            return
        generation = await exchange.counted(ask.whole(client_for(exchange, replica)))
    exchange.answer(lines.whole(generation))


async def _stream(exchange: Exchange, ask: Ask, replica: Replica, lines: Lines) -> None:
    out = exchange.stream(NDJSON)
    deltas = ask.stream(client_for(exchange, replica))
    async with exchange.reading(deltas):
        async for delta in deltas:
            for line in lines.delta(delta):
                await out.line(line)
    await out.line(lines.end(deltas.generation))
