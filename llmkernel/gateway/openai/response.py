"""A response: what was asked, in short, and what the model wrote."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llmkernel.client.generation import Generation
from llmkernel.gateway.openai.dialect import Error
from llmkernel.gateway.openai.response_request import ResponseRequest
from llmkernel.gateway.translation.log_probabilities import Entry, entries
from llmkernel.gateway.translation.naming import Head
from llmkernel.params import SamplingParams
from llmkernel.protocol import Usage

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputText(msgspec.Struct):
    """The text of a turn."""

    text: str = ""
    logprobs: list[Entry] = []
    annotations: list[Any] = []
    type: Literal["output_text"] = "output_text"


class OutputMessage(msgspec.Struct):
    """The turn that the model wrote."""

    id: str
    status: Status
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"
    type: Literal["message"] = "message"


class InputDetails(msgspec.Struct):
    """What of the input was there before."""

    cached_tokens: int = 0


class OutputDetails(msgspec.Struct):
    """What of the output is no text."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """Tokens of one response."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class Incomplete(msgspec.Struct):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class TextFormat(msgspec.Struct, frozen=True):
    """The form of the answer."""

    type: Literal["text"] = "text"


class TextSettings(msgspec.Struct, frozen=True):
    """What the answer's text must be like."""

    format: TextFormat = TextFormat()


class Response(msgspec.Struct, kw_only=True):
    """A response, at any time of its life."""

    id: str
    created_at: int
    model: str
    status: Status = "in_progress"
    output: list[OutputMessage] = []
    usage: ResponseUsage | None = None
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    temperature: float
    top_p: float
    store: bool
    metadata: dict[str, str]
    top_logprobs: int = 0
    user: str | None = None
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    text: TextSettings = TextSettings()
    truncation: Literal["disabled"] = "disabled"
    background: bool = False
    object: Literal["response"] = "response"


def begun(head: Head, request: ResponseRequest, params: SamplingParams) -> Response:
    """The response before anything is written."""
    return Response(
        id=head.id,
        created_at=head.created,
        model=head.model,
        instructions=request.instructions,
        previous_response_id=request.previous_response_id,
        max_output_tokens=request.max_output_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        store=request.store is not False,
        metadata=request.metadata or {},
        top_logprobs=params.logprobs or 0,
        user=request.user,
    )


def ended(response: Response, message_id: str, generation: Generation) -> Response:
    """The same, with the answer."""
    cut = generation.finish_reason == "length"
    return msgspec.structs.replace(
        response,
        status="incomplete" if cut else "completed",
        incomplete_details=Incomplete() if cut else None,
        output=[message(message_id, generation)],
        usage=_usage(generation.usage),
    )


def failed(response: Response, error: Error) -> Response:
    """The same, when it broke."""
    what = ResponseError(error.code or "server_error", error.message)
    return msgspec.structs.replace(response, status="failed", error=what)


def message(message_id: str, generation: Generation) -> OutputMessage:
    """The turn of an answer that has ended."""
    status: Status = "incomplete" if generation.finish_reason == "length" else "completed"
    text = OutputText(generation.text, entries(generation.logprobs or ()))
    return OutputMessage(message_id, status, [text])


def _usage(usage: Usage) -> ResponseUsage:
    read, written = usage.prompt_tokens, usage.completion_tokens
    details = InputDetails(usage.cached_tokens)
    return ResponseUsage(read, written, read + written, details, OutputDetails())
