"""A request to generate that is understood, on its way to a worker."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from llmkernel.client import AsyncClient
from llmkernel.client.generation import Generation
from llmkernel.client.streams import AsyncStream
from llmkernel.errors import InvalidRequest
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.replica import Replica
from llmkernel.gateway.terms import Lengths, client_for
from llmkernel.gateway.tgi.schemas import GenerateRequest
from llmkernel.gateway.tgi.tokens import Specials
from llmkernel.gateway.tgi.validation import Bounds, Plan, plan, room
from llmkernel.protocol import SINCE, ModelInfo

_specials: WeakKeyDictionary[Replica, Specials] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A request that can be sent: its worker, its prompt, what it asks for.

    Its prompt is a text where the worker may count the tokens when it makes them, which spares
    a question before the first token; the worker refuses what is out of bounds. What it
    refuses is `counted` and sent again: that tells why in TGI's words, or cuts the answer as
    TGI does.
    """

    replica: Replica
    client: AsyncClient
    plan: Plan
    bounds: Bounds
    inputs: str
    prompt: str | list[int]
    max_tokens: int | None
    length_first: bool
    """Whether an answer that is full ended for that, also where its last token ends it."""

    @property
    def is_counted(self) -> bool:
        """Whether its prompt is tokens."""
        return not isinstance(self.prompt, str)

    @property
    def specials(self) -> Specials:
        """The special tokens of its model."""
        found = _specials.get(self.replica)
        if found is None:
            found = _specials[self.replica] = Specials(self.replica.client)
        return found

    async def whole(self) -> Generation:
        """The whole answer."""
        return await self.client.generate(self.prompt, self.plan.params, max_tokens=self.max_tokens)

    def stream(self) -> AsyncStream:
        """The answer, piece by piece."""
        return self.client.stream(self.prompt, self.plan.params, max_tokens=self.max_tokens)

    def most(self, prompt_tokens: int) -> int:
        """Tokens that the answer may have after so long a prompt, which was taken."""
        left = self.bounds.total_tokens - prompt_tokens
        return left if self.max_tokens is None else min(left, self.max_tokens)

    def full(self, prompt_tokens: int) -> float:
        """Tokens at which an answer ended for its length, whatever its last one is."""
        return self.most(prompt_tokens) if self.length_first else math.inf

    async def counted(self, exchange: Exchange) -> Ready:
        """The same with a prompt of tokens. Raises InvalidRequest where there are too many."""
        try:
            ids = await self.replica.client.tokenize(self.inputs)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, field="inputs") from None
        await exchange.turn()
        if self.plan.truncate is not None:
            ids = ids[-self.plan.truncate :]
        most = room(self.plan, len(ids), self.bounds)
        exchange.validated()
        return replace(self, prompt=ids, max_tokens=most)


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
        checks = replica.connection.protocol >= SINCE["max_prompt_tokens"]
        lengths = Lengths(bounds.input_tokens, bounds.total_tokens) if checks else Lengths()
        ready = Ready(
            replica=replica,
            client=client_for(exchange, replica, lengths=lengths),
            plan=chosen,
            bounds=bounds,
            inputs=request.inputs,
            prompt=request.inputs,
            max_tokens=chosen.max_new_tokens,
            length_first=exchange.gateway.settings.tgi_compat == "strict",
        )
        if not checks or _needs_count(chosen, bounds, replica.info):
            ready = await ready.counted(exchange)
        else:
            exchange.validated()
        yield ready


def _needs_count(plan: Plan, bounds: Bounds, info: ModelInfo) -> bool:
    """Whether the tokens are needed before the worker has taken the request.

    To truncate; to cut an answer to the room that is left; and where the worker's own room is
    smaller than the bounds, so that it would give a shorter answer than was asked for.
    """
    asked = plan.max_new_tokens
    cut = asked is not None and asked >= bounds.total_tokens
    small = asked is None and info.max_prompt_tokens + 1 < bounds.total_tokens
    return plan.truncate is not None or cut or small
