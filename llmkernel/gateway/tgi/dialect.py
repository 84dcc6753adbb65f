"""How Text Generation Inference words its errors."""

from __future__ import annotations

from llmkernel.errors import TABLE, RequestEnded, Unavailable
from llmkernel.gateway.dialects import ErrorBody, Reply, encode, sse
from llmkernel.gateway.faults import Failure

_PLAIN = {
    "syntax": "Failed to parse the request body as JSON: ",
    "shape": "Failed to deserialize the JSON body into the target type: ",
    "content_type": "Expected request with `Content-Type: application/json`. ",
    "too_large": "Failed to buffer the request body: length limit exceeded. ",
}
"""What is wrong with a body is told as text: its router leaves that to its HTTP library."""
_VALIDATION = ("invalid_request", "unsupported_field", "prompt_too_long")


class TGIDialect:
    """`{"error", "error_type"}`, and texts where its HTTP library answers for a body."""

    name = "tgi"

    def reply(self, failure: Failure) -> Reply:
        """The answer for a failure."""
        if failure.code == "unauthorized":
            # with an error_type huggingface_hub would not say that it was a 401
            return Reply(
                failure.status, encode({"error": failure.message}), headers=failure.headers
            )
        if failure.code in _PLAIN:
            text = _PLAIN[failure.code] + failure.message
            return Reply(
                failure.status, text.encode(), "text/plain; charset=utf-8", failure.headers
            )
        status, body = worded(failure)
        return Reply(status, encode(body), headers=failure.headers)

    def last_words(self, failure: Failure) -> bytes:
        """An event of the same shape; its streams have no end marker."""
        return sse(encode(worded(failure)[1]))


def worded(failure: Failure) -> tuple[int, ErrorBody]:
    """Status and body of everything that is told as JSON."""
    if failure.code in _VALIDATION:
        return 422, ErrorBody(f"Input validation error: {failure.message}", "validation")
    if failure.code == "template_error":
        return 422, ErrorBody(f"Template error: {failure.message}", "template_error")
    if failure.code == "overloaded":
        return 429, ErrorBody("Model is overloaded", "overloaded")
    known = TABLE.get(failure.code)
    if known is not None and issubclass(known.exception, RequestEnded):
        text = f"Request failed during generation: {failure.message}"
        return 424, ErrorBody(text, "generation")
    if known is not None and issubclass(known.exception, Unavailable):
        return 503, ErrorBody(failure.message, "healthcheck")
    if failure.code == "internal":
        return 500, ErrorBody("Incomplete generation", "incomplete_generation")
    return failure.status, ErrorBody(failure.message, failure.code)


TGI = TGIDialect()
