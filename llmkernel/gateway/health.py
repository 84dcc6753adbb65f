"""Whether the gateway and its models are up; TGI's, SageMaker's and Triton's names for it."""

from __future__ import annotations

from llmkernel.gateway.dialects import Reply
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.routes import Route


async def health(exchange: Exchange) -> None:
    """200 with no body while some model takes requests or would be loaded for one, else 503."""
    if exchange.gateway.up:
        exchange.reply(Reply(200, b"", "text/plain; charset=utf-8"))
    else:
        exchange.answer({"error": "unhealthy", "error_type": "healthcheck"}, 503)


ROUTES = [
    Route(method="GET", path="/health", act=health, summary="Up or down", open=True),
    Route(method="GET", path="/ping", act=health, summary="Up or down (SageMaker)", open=True),
]
