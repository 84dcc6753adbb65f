"""Anthropic's errors: `{"type": "error", "error": {"type", "message"}}`."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmkernel.gateway.dialects import Reply, sse
from llmkernel.gateway.faults import Failure

_STATUS = {422: 400, 499: 500, 507: 529, 503: 529, 424: 500, 426: 502, 408: 500}
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
    return _STATUS.get(failure.status, failure.status)


def _body(failure: Failure) -> bytes:
    status = _status(failure)
    general = "api_error" if status >= 500 else "invalid_request_error"
    return msgspec.json.encode(ErrorBody(Error(_TYPES.get(status, general), failure.message)))


ANTHROPIC = AnthropicDialect()
