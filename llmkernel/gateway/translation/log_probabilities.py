"""Log-probabilities of tokens, as OpenAI and Ollama show them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmkernel.protocol import TokenLogprob, TopToken

LEAST = -9999.0
"""JSON has no infinity; this is what OpenAI's API says instead."""


class Alternative(msgspec.Struct):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None
    """UTF-8 of the token; null where it is a part of a character."""


class Entry(msgspec.Struct):
    """A token that was written, and the likeliest ones in its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Alternative]


def entries(tokens: Sequence[TokenLogprob]) -> list[Entry]:
    """One entry for each token."""
    return [
        Entry(
            token=token.text,
            logprob=finite(token.logprob),
            bytes=_bytes(token.text),
            top_logprobs=[_alternative(top) for top in token.top],
        )
        for token in tokens
    ]


def finite(logprob: float | None) -> float:
    """A number that JSON can hold."""
    return LEAST if logprob is None else max(logprob, LEAST)


def _alternative(top: TopToken) -> Alternative:
    return Alternative(top.text, finite(top.logprob), _bytes(top.text))


def _bytes(text: str) -> list[int] | None:
    return None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
