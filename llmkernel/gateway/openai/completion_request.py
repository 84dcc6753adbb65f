"""The body of POST /v1/completions, and the questions that it is."""

from __future__ import annotations

from typing import Any

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.openai.stream_options import StreamOptions, includes_usage
from llmkernel.gateway.translation import sampling
from llmkernel.gateway.translation.ask import Ask
from llmkernel.gateway.translation.refusals import INFILLING, Refused, refuse
from llmkernel.params import SamplingParams

DEFAULT_MAX_TOKENS = 16
"""What OpenAI's API says."""
_REFUSED = {
    "suffix": Refused(INFILLING, ("",)),
    "grammar": Refused(features.grammar),
    "response_format": Refused(features.grammar, ({"type": "text"},)),
    "adapter_id": Refused(features.adapter),
}


class CompletionRequest(sampling.SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """A completion of one prompt or several, each a text or token ids."""

    prompt: str | list[Any]
    model: str | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    logprobs: int | None = None
    """Alternatives to each token."""
    echo: bool | None = None
    """Answer with the prompt and what follows; with logprobs and max_tokens 0 this is scoring."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: str | None = None
    """Share cached prompts only with requests of the same salt."""
    user: str | None = None
    suffix: Any = None
    grammar: Any = None
    response_format: Any = None
    adapter_id: Any = None


def asks(request: CompletionRequest, most: int) -> list[Ask]:
    """A question for each prompt, `most` at most. Raises InvalidRequest or UnsupportedField."""
    refuse(request, _REFUSED)
    wants_usage(request)
    params = _params(request)
    if request.stream:
        _check_stream(request, params)
    return [Ask(params=params, prompt=prompt) for prompt in prompts(request.prompt, most)]


def wants_usage(request: CompletionRequest) -> bool:
    """Whether the usage comes at the end of the stream. Raises InvalidRequest."""
    return includes_usage(request.stream_options, stream=bool(request.stream))


def prompts(value: str | list[Any], most: int) -> list[str | list[int]]:
    """The prompts in one: a text, token ids, or a list of either. Raises InvalidRequest."""
    if isinstance(value, str) or (value and _are_ids(value)):
        return [value]
    if not value:
        raise InvalidRequest("prompt is an empty list: give at least one.", field="prompt")
    if len(value) > most:
        raise InvalidRequest(
            f"prompt has {len(value)} prompts; up to {most} may come in one request.",
            field="prompt",
        )
    for number, each in enumerate(value):
        if not isinstance(each, str) and not (isinstance(each, list) and _are_ids(each)):
            raise InvalidRequest(
                f"prompt[{number}] must be text or a list of token ids.", field=f"prompt[{number}]"
            )
    return value


def _params(request: CompletionRequest) -> SamplingParams:
    limit = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    scored = request.logprobs
    if scored is None and limit == 0:
        scored = 0  # the prompt alone: the worker reads it for its scores
    values = sampling.given(request) | {
        "n": request.n,
        "best_of": request.best_of,
        "max_tokens": limit,
        "logprobs": request.logprobs,
        "prompt_logprobs": scored if request.echo else None,
    }
    return sampling.build(values)


def _check_stream(request: CompletionRequest, params: SamplingParams) -> None:
    if params.width > params.n:
        raise InvalidRequest(
            "best_of cannot be streamed: which answers are best is known at the end.",
            field="best_of",
        )
    if request.echo and params.prompt_logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs, or with max_tokens 0, cannot be streamed. Leave stream out.",
            field="echo",
        )


def _are_ids(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int}  # true and false are bools; a body may hold a million
