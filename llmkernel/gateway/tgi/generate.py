"""Generation in Text Generation Inference's shapes: whole, in a list, as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from llmkernel.errors import InvalidRequest, LLMKernelError
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import failure_of
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.terms import client_for
from llmkernel.gateway.tgi import headers
from llmkernel.gateway.tgi.answers import reason, response
from llmkernel.gateway.tgi.dialect import TGI
from llmkernel.gateway.tgi.schemas import CompatRequest, GenerateRequest, GenerateResponse
from llmkernel.gateway.tgi.streaming import Streaming
from llmkernel.gateway.tgi.tokens import Specials
from llmkernel.gateway.tgi.validation import Bounds, Plan, plan, room

_specials: WeakKeyDictionary[Replica, Specials] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A request that will be sent as it is: its worker, its tokens, what it asks for."""

    replica: Replica
    plan: Plan
    inputs: str
    ids: list[int]
    max_tokens: int

    @property
    def specials(self) -> Specials:
        """The special tokens of its model."""
        return specials_of(self.replica)


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
            client = client_for(exchange, ready.replica)
            answer = await exchange.counted(
                client.generate(ready.ids, ready.plan.params, max_tokens=ready.max_tokens)
            )
        body = await response(answer, ready.plan, ready.inputs, ready.specials)
        return body, headers.timings(exchange.record, ready.replica, ready.inputs, answer)


async def stream(exchange: Exchange, request: GenerateRequest, *, full_text: bool) -> None:
    """The answer as events. In strict mode refusals are events too, as TGI has it."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            ready = await stack.enter_async_context(
                prepared(exchange, request, stream=True, full_text=full_text)
            )
        except LLMKernelError as error:
            if exchange.gateway.settings.tgi_compat != "strict":
                raise
            failure = failure_of(error)
            exchange.record.outcome = failure.code
            await exchange.stream().write(TGI.last_words(failure))
            return
        await _events(exchange, ready)


async def _events(exchange: Exchange, ready: Ready) -> None:
    out = exchange.stream()
    out.headers(headers.stream(ready.replica, ready.inputs))
    streaming = Streaming(ready.plan, ready.inputs, len(ready.ids), ready.max_tokens)
    client = client_for(exchange, ready.replica)
    deltas = client.stream(ready.ids, ready.plan.params, max_tokens=ready.max_tokens)
    async with exchange.reading(deltas):
        async for delta in deltas:
            for event in await streaming.take(delta, ready.specials):
                await out.event(event)
    answer = deltas.generation
    await out.event(streaming.last(answer, reason(answer)))


@asynccontextmanager
async def prepared(
    exchange: Exchange, request: GenerateRequest, *, stream: bool, full_text: bool
) -> AsyncIterator[Ready]:
    """A worker and a checked request. Raises InvalidRequest in TGI's words."""
    async with exchange.lease() as replica:
        bounds = Bounds.of(exchange.gateway.settings.limits, replica.info)
        chosen = plan(
            request.parameters, bounds, inputs=request.inputs, stream=stream, full_text=full_text
        )
        try:
            ids = await replica.client.tokenize(request.inputs)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, field="inputs") from None
        await exchange.turn()
        if chosen.truncate is not None:
            ids = ids[-chosen.truncate :]
        most = room(chosen, len(ids), bounds)
        exchange.validated()
        exchange.record.max_new_tokens = most
        yield Ready(replica=replica, plan=chosen, inputs=request.inputs, ids=ids, max_tokens=most)


def specials_of(replica: Replica) -> Specials:
    """What is known of the special tokens of a replica's model."""
    found = _specials.get(replica)
    if found is None:
        found = _specials[replica] = Specials(replica.client)
    return found


def _copies(exchange: Exchange, best_of: int) -> contextlib.AbstractContextManager[None]:
    return exchange.permits(best_of, "best_of") if best_of > 1 else contextlib.nullcontext()
