"""The body of POST /v1/responses, and the question that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.openai import input_items
from llmkernel.gateway.translation import sampling
from llmkernel.gateway.translation.ask import Ask, conversation
from llmkernel.gateway.translation.refusals import (
    CONTEXT,
    MODERATION,
    REASONING,
    SCHEDULING,
    STORAGE,
    TEMPLATES,
    Refused,
    refuse,
)
from llmkernel.protocol import ChatMessage

LOGPROBS = "message.output_text.logprobs"
_PLAIN = {"format": {"type": "text"}}
_REFUSED = {
    "tools": Refused(features.tools, ([],)),
    "tool_choice": Refused(features.tools, ("none", "auto")),
    "max_tool_calls": Refused(features.tools),
    "text": Refused(features.grammar, (_PLAIN, {}, {**_PLAIN, "verbosity": "medium"})),
    "reasoning": Refused(REASONING, ({}, {"effort": "none"})),
    "truncation": Refused(CONTEXT, ("disabled",)),
    "context_management": Refused(CONTEXT, ([],)),
    "prompt": Refused(TEMPLATES),
    "moderation": Refused(MODERATION),
    "image": Refused(features.images),
    "access_programs": Refused(features.tools),
    "conversation": Refused(STORAGE),
    "background": Refused(SCHEDULING, (False,)),
    "background_options": Refused(SCHEDULING),
    "service_tier": Refused(SCHEDULING, ("auto", "default")),
}


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream of a response shall hold beside the answer."""

    include_obfuscation: bool | None = None
    """Padding against an eavesdropper on the length of events; there is none here."""


class ResponseRequest(sampling.SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """A response: the fields of OpenAI's API, and the parameters of this project's own.

    `user`, `metadata`, `safety_identifier`, `prompt_cache_*` and `parallel_tool_calls` change
    no answer. What is typed Any below them is refused, by name, unless it asks for nothing.
    """

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    """Comes first, as the system's turn; it is not carried over by previous_response_id."""
    previous_response_id: str | None = None
    """Go on after that one, which this gateway must have kept."""
    store: bool | None = None
    """Keep this one, in memory and for a while; false keeps nothing."""
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    """Only message.output_text.logprobs."""
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    cache_salt: str | None = None
    """Share cached prompts only with requests of the same salt."""
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    tools: Any = None
    tool_choice: Any = None
    max_tool_calls: Any = None
    text: Any = None
    reasoning: Any = None
    truncation: Any = None
    context_management: Any = None
    prompt: Any = None
    conversation: Any = None
    background: Any = None
    background_options: Any = None
    moderation: Any = None
    image: Any = None
    access_programs: Any = None
    service_tier: Any = None


def turns(request: ResponseRequest) -> list[ChatMessage]:
    """What the request adds to the conversation, its instructions aside. Raises InvalidRequest."""
    found = input_items.turns(request.input)
    if not found:
        raise InvalidRequest("input is empty: give at least one turn.", field="input")
    return found


def ask(request: ResponseRequest, before: Sequence[ChatMessage], new: Sequence[ChatMessage]) -> Ask:
    """The question after the turns `before`. Raises InvalidRequest or UnsupportedField."""
    refuse(request, _REFUSED)
    values = sampling.given(request) | {
        "max_tokens": request.max_output_tokens,
        "logprobs": _alternatives(request),
    }
    names = {"max_tokens": "max_output_tokens", "logprobs": "top_logprobs"}
    first = request.instructions
    head = [ChatMessage(role="system", content=first)] if first is not None else []
    return conversation([*head, *before, *new], sampling.build(values, names))


def _alternatives(request: ResponseRequest) -> int | None:
    for name in request.include or ():
        if name != LOGPROBS:
            raise InvalidRequest(f"include takes {LOGPROBS} and nothing else.", field="include")
    if request.include:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise InvalidRequest(
            f"top_logprobs needs include to name {LOGPROBS}.", field="top_logprobs"
        )
    return None
