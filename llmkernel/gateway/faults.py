"""What a request can end with instead of an answer, before a dialect gives it its shape."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tornado.web import HTTPError

from llmkernel.errors import TABLE, InvalidRequest, LLMKernelError, Unavailable

Kind = Literal[
    "unauthorized",
    "forbidden",
    "not_found",
    "method",
    "too_large",
    "content_type",
    "syntax",
    "shape",
    "bad_request",
]
"""What is wrong with a request as HTTP, before any question of models arises."""

_STATUS: dict[Kind, int] = {
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method": 405,
    "too_large": 413,
    "content_type": 415,
    "syntax": 400,
    "shape": 422,
    "bad_request": 400,
}
RETRY_SECONDS = 1


class Refusal(Exception):
    """A request that is refused as HTTP. `message` may be shown to whoever sent it."""

    def __init__(
        self, kind: Kind, message: str, *, field: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.headers = headers or {}


class TemplateFailed(Exception):
    """A conversation that the model's chat template does not take."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Failure(NamedTuple):
    """A failure in plain terms: what a dialect makes its error from."""

    status: int
    code: str
    """A code of llmkernel.errors.TABLE, or a Kind."""
    message: str
    field: str = ""
    """The field of the request that is to blame, where one is."""
    headers: Mapping[str, str] = MappingProxyType({})
    data: Mapping[str, Any] = MappingProxyType({})


def failure_of(error: BaseException) -> Failure:
    """What to tell a client of `error`. What nobody foresaw is told without its words."""
    if isinstance(error, Refusal):
        return Failure(
            _STATUS[error.kind], error.kind, error.message, error.field, dict(error.headers)
        )
    if isinstance(error, ExceptionGroup):  # of a task group, where the first one counts
        return failure_of(error.exceptions[0])
    if isinstance(error, TemplateFailed):
        return Failure(422, "template_error", error.message, "messages")
    if isinstance(error, LLMKernelError):
        return _known(error)
    if isinstance(error, HTTPError):
        return Failure(error.status_code, _http_code(error.status_code), _phrase(error.status_code))
    return Failure(500, "internal", "Something went wrong here; the gateway's log says what.")


def _known(error: LLMKernelError) -> Failure:
    outcome = TABLE.get(error.code) or TABLE["internal"]
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, Unavailable) else {}
    field = str(error.data.get("field", "")) if isinstance(error, InvalidRequest) else ""
    return Failure(outcome.http_status, error.code, error.message, field, headers, dict(error.data))


def _http_code(status: int) -> str:
    kinds: dict[int, str] = {number: kind for kind, number in _STATUS.items() if kind != "syntax"}
    return kinds.get(status, "internal" if status >= 500 else "bad_request")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase + "."
    except ValueError:
        return "The request failed."
