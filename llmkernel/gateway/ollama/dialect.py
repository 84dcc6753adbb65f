"""Ollama's errors: `{"error": message}`."""

from __future__ import annotations

import msgspec

from llmkernel.gateway.dialects import Reply, line
from llmkernel.gateway.faults import Failure
from llmkernel.gateway.translation.statuses import status_of


class ErrorBody(msgspec.Struct):
    """The body of an answer that is an error, and the line that ends a broken stream."""

    error: str


class OllamaDialect:
    """The routes of Ollama's API."""

    name = "ollama"

    def reply(self, failure: Failure) -> Reply:
        """The error as JSON."""
        return Reply(status_of(failure), _body(failure), headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """The error as the last line. None says done: the answer is not whole."""
        return line(_body(failure))


def _body(failure: Failure) -> bytes:
    return msgspec.json.encode(ErrorBody(failure.message))


OLLAMA = OllamaDialect()
