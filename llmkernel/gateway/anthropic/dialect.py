"""Anthropic's errors: `{"type": "error", "error": {"type", "message"}}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec

from llmkernel.gateway.dialects import Reply, sse
from llmkernel.gateway.faults import Failure
from llmkernel.gateway.translation.statuses import status_of

_OVERLOADED = 529
"""This API's own status for what may go better later."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Error(msgspec.Struct):
    """What went wrong."""

    type: str
    message: str


class ErrorBody(msgspec.Struct):
    """The body of an answer that is an error, and the event that ends a broken stream."""

    error: Error
    type: Literal["error"] = "error"


class AnthropicDialect:
    """The routes of Anthropic's API."""

    name = "anthropic"

    def reply(self, failure: Failure) -> Reply:
        """The error as JSON."""
        status = _status(failure)
        return Reply(status, _body(failure), headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """The error as the last event. No `message_stop`: the answer is not whole."""
        return sse(_body(failure), "error")


def _status(failure: Failure) -> int:
    status = status_of(failure)
    return _OVERLOADED if status == HTTPStatus.SERVICE_UNAVAILABLE else status


def _body(failure: Failure) -> bytes:
    status = _status(failure)
    general = "api_error" if status >= 500 else "invalid_request_error"
    return msgspec.json.encode(ErrorBody(Error(_TYPES.get(status, general), failure.message)))


ANTHROPIC = AnthropicDialect()
