"""Generation in Text Generation Inference's shapes: whole, in a list, as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable

from llmkernel.client.generation import Generation
from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.gateway import times
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import failure_of
from llmkernel.gateway.tgi.answers import reason, response
from llmkernel.gateway.tgi.dialect import TGI
from llmkernel.gateway.tgi.ready import Ready, prepared
from llmkernel.gateway.tgi.schemas import CompatRequest, GenerateRequest, GenerateResponse
from llmkernel.gateway.tgi.streaming import Streaming


async def generate(exchange: Exchange) -> None:
    """POST /generate: one object."""
    request = exchange.read(GenerateRequest)
    answer, more = await whole(exchange, request, full_text=False)
    exchange.answer(answer, headers=more)


async def generate_stream(exchange: Exchange) -> None:
    """POST /generate_stream: an event for each token."""
    await stream(exchange, exchange.read(GenerateRequest), full_text=False)


async def compat(exchange: Exchange) -> None:
    """POST /: a list of one object, or a stream."""
    await compatible(exchange, exchange.read(CompatRequest))


async def compatible(exchange: Exchange, request: CompatRequest) -> None:
    """The answer of `POST /`, for the routes that share its body."""
    strict = exchange.gateway.settings.tgi_compat == "strict"
    if request.stream:
        await stream(exchange, request, full_text=strict)
        return
    answer, more = await whole(exchange, request, full_text=strict)
    exchange.answer([answer], headers=more)


async def whole(
    exchange: Exchange, request: GenerateRequest, *, full_text: bool
) -> tuple[GenerateResponse, dict[str, str]]:
    """The answer to a request, and the headers that tell how long it took."""
    async with prepared(exchange, request, stream=False, full_text=full_text) as ready:
        with _copies(exchange, ready.plan.best_of):
            answer = await exchange.counted(_answer(exchange, ready))
        exchange.record.max_new_tokens = ready.most(answer.usage.prompt_tokens)
        full = ready.full(answer.usage.prompt_tokens)
        body = await response(answer, ready.plan, ready.inputs, ready.specials, full)
        return body, times.ended(exchange.record, ready.replica, len(ready.inputs))


async def _answer(exchange: Exchange, ready: Ready) -> Generation:
    try:
        return await ready.whole()
    except InvalidRequest:
        if ready.is_counted:
            raise
    return await (await ready.counted(exchange)).whole()


async def stream(exchange: Exchange, request: GenerateRequest, *, full_text: bool) -> None:
    """The answer as events. In strict mode refusals are events too, as TGI has it."""
    async with contextlib.AsyncExitStack() as stack:
        ready = await _or_told(
            exchange,
            stack.enter_async_context(
                prepared(exchange, request, stream=True, full_text=full_text)
            ),
        )
        if ready is None:
            return
        try:
            await _events(exchange, ready)
        except InvalidRequest:
            if ready.is_counted or (exchange.outflow is not None and exchange.outflow.begun):
                raise
        else:
            return
        again = await _or_told(exchange, ready.counted(exchange))
        if again is not None:
            await _events(exchange, again)


async def _or_told(exchange: Exchange, work: Awaitable[Ready]) -> Ready | None:
    """What `work` gives; None where it refused, and that was told as an event."""
    try:
        return await work
    except LLMKernelError as error:
        if exchange.gateway.settings.tgi_compat != "strict":
            raise
        failure = failure_of(error)
        exchange.record.outcome = failure.code
        await exchange.stream().write(TGI.last_words(failure))
        return None


async def _events(exchange: Exchange, ready: Ready) -> None:
    out = exchange.stream()
    out.headers(times.begun(ready.replica, len(ready.inputs)))
    streaming = Streaming(ready.plan, ready.inputs)
    deltas = ready.stream()
    async with exchange.reading(deltas):
        async for delta in deltas:
            if not streaming.most:
                streaming.most = ready.most(deltas.prompt_tokens or 0)
            for event in await streaming.take(delta, ready.specials):
                await out.event(event)
    answer = deltas.generation
    exchange.record.max_new_tokens = ready.most(answer.usage.prompt_tokens)
    await out.event(streaming.last(answer, reason(answer, ready.full(answer.usage.prompt_tokens))))


def _copies(exchange: Exchange, best_of: int) -> contextlib.AbstractContextManager[None]:
    return exchange.permits(best_of, "best_of") if best_of > 1 else contextlib.nullcontext()
