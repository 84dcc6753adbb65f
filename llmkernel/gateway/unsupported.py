"""Routes that a dialect has and this gateway does not: refused in its words, with the reason."""

from __future__ import annotations

from llmkernel.errors import UnsupportedField
from llmkernel.gateway.anthropic.dialect import ANTHROPIC
from llmkernel.gateway.dialects import OWN, Dialect
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.ollama.dialect import OLLAMA
from llmkernel.gateway.openai.dialect import OPENAI
from llmkernel.gateway.routes import Act

_PREFIXES: list[tuple[str, Dialect]] = [
    ("/v1/messages", ANTHROPIC),
    ("/v1/", OPENAI),
    ("/api/", OLLAMA),
]


def dialect_of(path: str) -> Dialect:
    """Whose client asked for a path that is no route."""
    return next((found for prefix, found in _PREFIXES if path.startswith(prefix)), OWN)


def unsupported(why: str) -> Act:
    """What such a route does: say why not, whatever it was sent."""

    async def refuse(exchange: Exchange) -> None:
        del exchange
        raise UnsupportedField(why)

    return refuse
