"""The body of POST /v1/chat/completions, and the question that it is."""

from __future__ import annotations

from typing import Any

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.openai.messages import Message, turns
from llmkernel.gateway.openai.stream_options import StreamOptions, includes_usage
from llmkernel.gateway.translation import sampling
from llmkernel.gateway.translation.ask import Ask, conversation
from llmkernel.gateway.translation.refusals import (
    MODERATION,
    PREDICTION,
    REASONING,
    SCHEDULING,
    STORAGE,
    TEMPLATES,
    Refused,
    refuse,
)

_REFUSED = {
    "tools": Refused(features.tools, ([],)),
    "tool_choice": Refused(features.tools, ("none", "auto")),
    "tool_prompt": Refused(features.tools),
    "functions": Refused(features.tools, ([],)),
    "function_call": Refused(features.tools, ("none", "auto")),
    "response_format": Refused(features.grammar, ({"type": "text"},)),
    "modalities": Refused(features.audio, (["text"], [])),
    "audio": Refused(features.audio),
    "prediction": Refused(PREDICTION),
    "reasoning_effort": Refused(REASONING, ("none",)),
    "verbosity": Refused(REASONING, ("medium",)),
    "web_search_options": Refused(features.tools),
    "store": Refused(STORAGE, (False,)),
    "service_tier": Refused(SCHEDULING, ("auto", "default")),
    "chat_template": Refused(TEMPLATES),
    "chat_template_kwargs": Refused(TEMPLATES, ({},)),
    "moderation": Refused(MODERATION),
    "grammar": Refused(features.grammar),
    "adapter_id": Refused(features.adapter),
}


class ChatRequest(sampling.SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """A chat completion: the fields of OpenAI's API, and the parameters of this project's own.

    `user`, `metadata`, `safety_identifier`, `prompt_cache_*` and `parallel_tool_calls` are
    taken and change nothing. What is typed Any below them is refused, by name, unless it asks
    for nothing.
    """

    messages: list[Message]
    model: str | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    """The newer name of max_tokens; it wins."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
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
    tool_prompt: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    store: Any = None
    service_tier: Any = None
    chat_template: Any = None
    chat_template_kwargs: Any = None
    moderation: Any = None
    grammar: Any = None
    adapter_id: Any = None


def ask(request: ChatRequest) -> Ask:
    """The question. Raises InvalidRequest or UnsupportedField naming the field."""
    refuse(request, _REFUSED)
    wants_usage(request)
    newer = request.max_completion_tokens
    values = sampling.given(request) | {
        "n": request.n,
        "max_tokens": request.max_tokens if newer is None else newer,
        "logprobs": _alternatives(request),
    }
    names = {"logprobs": "top_logprobs"}
    if newer is not None:
        names["max_tokens"] = "max_completion_tokens"
    return conversation(turns(request.messages), sampling.build(values, names))


def wants_usage(request: ChatRequest) -> bool:
    """Whether the usage comes at the end of the stream. Raises InvalidRequest."""
    return includes_usage(request.stream_options, stream=bool(request.stream))


def _alternatives(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", field="top_logprobs")
    return None
