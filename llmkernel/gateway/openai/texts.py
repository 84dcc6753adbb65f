"""POST /detokenize and /apply-template: what other OpenAI-like servers have beside the API."""

from __future__ import annotations

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.openai.messages import Message, turns


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Token ids to make a text of."""

    tokens: list[int]
    model: str | None = None


class Detokenized(msgspec.Struct):
    """The text, under the names that llama.cpp and vLLM have for it."""

    content: str
    prompt: str


class TemplateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation to make a prompt of."""

    messages: list[Message]
    model: str | None = None


class Templated(msgspec.Struct):
    """The prompt as the model reads it, special tokens by their names."""

    prompt: str
    tokens: list[int]


async def detokenize(exchange: Exchange) -> None:
    """The text of token ids."""
    request = exchange.read(DetokenizeRequest)
    async with exchange.lease(request.model) as replica:
        try:
            text = await replica.client.detokenize(request.tokens)
        except InvalidRequest as error:
            raise InvalidRequest(
                error.message.replace("token_ids", "tokens"), field="tokens"
            ) from None
    exchange.answer(Detokenized(text, text))


async def apply_template(exchange: Exchange) -> None:
    """The prompt that the model's chat template makes of a conversation."""
    request = exchange.read(TemplateRequest)
    messages = await exchange.apart(turns, request.messages)
    if not messages:
        raise InvalidRequest("messages is empty: give at least one turn.", field="messages")
    async with exchange.lease(request.model) as replica:
        tokens = await replica.client.tokenize(messages)
        prompt = await replica.client.detokenize(tokens)
    exchange.answer(Templated(prompt, tokens))
