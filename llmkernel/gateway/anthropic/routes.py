"""The routes of Anthropic's API."""

from __future__ import annotations

from functools import partial

from llmkernel.gateway.anthropic.answer import Message
from llmkernel.gateway.anthropic.dialect import ANTHROPIC
from llmkernel.gateway.anthropic.messages import TokenCount, count_tokens, create_message
from llmkernel.gateway.anthropic.request import Conversation, MessagesRequest
from llmkernel.gateway.anthropic.stream import MessageEvent
from llmkernel.gateway.outflow import EVENT_STREAM
from llmkernel.gateway.routes import Route

_route = partial(Route, dialect=ANTHROPIC)
_TURNS = [{"role": "user", "content": "How do I stop a cell?"}]

ROUTES = [
    _route(
        method="POST",
        path="/v1/messages",
        act=create_message,
        summary="The next turn of a conversation",
        body=MessagesRequest,
        example={"model": "tgi", "messages": _TURNS, "max_tokens": 60},
        answer=Message,
        streams=EVENT_STREAM,
        event=MessageEvent,
        generates=True,
    ),
    _route(
        method="POST",
        path="/v1/messages/count_tokens",
        act=count_tokens,
        summary="The tokens of a conversation",
        body=Conversation,
        example={"model": "tgi", "messages": _TURNS},
        answer=TokenCount,
        asks=True,
    ),
]
