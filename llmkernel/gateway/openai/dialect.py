"""OpenAI's errors: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import msgspec

from llmkernel.gateway.dialects import Reply, sse
from llmkernel.gateway.faults import Failure
from llmkernel.gateway.translation.statuses import status_of

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_CODES = {
    "prompt_too_long": "context_length_exceeded",
    "unsupported_field": "unsupported_parameter",
    "invalid_request": "invalid_value",
    "shape": "invalid_type",
    "syntax": "invalid_json",
    "unauthorized": "invalid_api_key",
    "worker_not_found": "model_not_found",
    "overloaded": "rate_limit_exceeded",
}
"""The codes that clients look for, by ours."""


class Error(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The field to blame."""
    code: str | None


class ErrorBody(msgspec.Struct):
    """The body of an answer that is an error."""

    error: Error


def error_of(failure: Failure) -> Error:
    """A failure in OpenAI's words."""
    status = status_of(failure)
    general = "server_error" if status >= 500 else "invalid_request_error"
    return Error(
        message=_message(failure),
        type=_TYPES.get(status, general),
        param=str(failure.field or failure.data.get("field", "")) or None,
        code=_CODES.get(failure.code, failure.code),
    )


def _message(failure: Failure) -> str:
    """The message, with the words that clients know a too long prompt by."""
    limit = failure.data.get("limit")
    if failure.code != "prompt_too_long" or limit is None:
        return failure.message
    if "bound" in failure.data:  # the gateway's own limit; clients look for these three words
        return f"This is above the maximum context length that is served here. {failure.message}"
    return f"This model's maximum context length is {limit} tokens. {failure.message}"


class OpenAIDialect:
    """The routes of OpenAI's API."""

    name = "openai"

    def reply(self, failure: Failure) -> Reply:
        """The error as JSON."""
        body = msgspec.json.encode(ErrorBody(error_of(failure)))
        return Reply(status_of(failure), body, headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """The error as the last event. No `[DONE]`: the answer is not whole."""
        return sse(msgspec.json.encode(ErrorBody(error_of(failure))))


OPENAI = OpenAIDialect()
