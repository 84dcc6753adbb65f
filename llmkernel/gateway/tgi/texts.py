"""/tokenize and /chat_tokenize."""

from __future__ import annotations

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.dialects import encode
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.faults import TemplateFailed
from llmkernel.gateway.tgi.schemas import (
    ChatTokenizeRequest,
    GenerateRequest,
    Turn,
)
from llmkernel.gateway.tgi.tokens import places
from llmkernel.protocol import ChatMessage


async def tokenize(exchange: Exchange) -> None:
    """The tokens of a prompt and where each is in it."""
    request = exchange.read(GenerateRequest)
    if not request.inputs:
        raise InvalidRequest("`inputs` cannot be empty", field="inputs")
    async with exchange.lease() as replica:
        ids, texts = await replica.spell(request.inputs)
    await exchange.answer_list(places(request.inputs, ids, texts))


async def chat_tokenize(exchange: Exchange) -> None:
    """The tokens of a conversation, and the text that its template made."""
    request = exchange.read(ChatTokenizeRequest)
    turns = await exchange.apart(conversation, request.messages)
    async with exchange.lease(request.model) as replica:
        try:
            ids, texts = await replica.spell(turns)
        except InvalidRequest as error:
            raise TemplateFailed(error.message) from None
        text = await replica.client.detokenize(ids)
    # a ChatTokenizeResponse, whose list may be long
    await exchange.answer_list(
        places(text, ids, texts),
        before=b'{"tokenize_response":[',
        after=b'],"templated_text":' + encode(text) + b"}",
    )


def conversation(turns: list[Turn]) -> list[ChatMessage]:
    """Turns as the worker takes them. Raises InvalidRequest for parts that are no text."""
    return [
        ChatMessage(role=turn.role, content=_text(turn, number))
        for number, turn in enumerate(turns)
    ]


def _text(turn: Turn, number: int) -> str:
    content = turn.content
    if isinstance(content, str):
        return content
    field = f"messages[{number}].content"
    if not isinstance(content, list):
        raise InvalidRequest(f"{field} must be text or a list of parts.", field=field)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            features.images(part, field)
            raise InvalidRequest(f"{field} holds a part that is none.", field=field)
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{field} has a part whose text is none.", field=field)
        texts.append(part["text"])
    return "".join(texts)
