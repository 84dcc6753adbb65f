"""Routes that a dialect has and this gateway does not: refused in its words, with the reason."""

from __future__ import annotations

import re

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


_UNVERSIONED: list[tuple[re.Pattern[str], Dialect, str]] = [
    (
        re.compile(r"/(chat/completions|completions|embeddings|models|responses)(/.*)?"),
        OPENAI,
        "OpenAI's routes are under /v1, which belongs to the base URL of their clients.",
    ),
    (
        re.compile(r"/messages(/.*)?"),
        ANTHROPIC,
        "Anthropic's routes are under /v1, which their clients add by themselves.",
    ),
]
"""Paths from which the version was left out."""


def dialect_of(path: str) -> Dialect:
    """Whose client asked for a path that is no route."""
    for pattern, dialect, _ in _UNVERSIONED:
        if pattern.fullmatch(path):
            return dialect
    path = path.removeprefix("/v1") if path.startswith("/v1/v1/") else path
    return next((found for prefix, found in _PREFIXES if path.startswith(prefix)), OWN)


def no_route(path: str) -> str:
    """What is said of a path that is no route."""
    said = "There is no such route."
    if path.startswith("/v1/v1/"):
        return f"{said} It has /v1 twice: the base URL should end without it."
    hints = (hint for pattern, _, hint in _UNVERSIONED if pattern.fullmatch(path))
    return " ".join([said, *hints])


def unsupported(why: str) -> Act:
    """What such a route does: say why not, whatever it was sent."""

    async def refuse(exchange: Exchange) -> None:
        del exchange
        raise UnsupportedField(why)

    return refuse
