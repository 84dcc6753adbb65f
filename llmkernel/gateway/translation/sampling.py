"""Sampling parameters from a request: its names for them, the project's one validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest
from llmkernel.params import SamplingParams


class SamplingFields(msgspec.Struct, kw_only=True):
    """What OpenAI's requests say about sampling, and beyond it what SamplingParams can do."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    """By token id; JSON has no other keys than texts."""
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None


def given(request: SamplingFields) -> dict[str, Any]:
    """The values of those fields, for `build`. Raises InvalidRequest for what is no token id."""
    values = {name: getattr(request, name) for name in SamplingFields.__struct_fields__}
    if request.logit_bias is not None:
        values["logit_bias"] = {_token_id(key): bias for key, bias in request.logit_bias.items()}
    return values


def build(values: Mapping[str, Any], names: Mapping[str, str] | None = None) -> SamplingParams:
    """Check `values`, by the names of SamplingParams; None stands for the default.

    Raises InvalidRequest that says it with the words of the dialect: `names` has them by ours.
    Without "prompt_logprobs" among the values a prompt is not scored, so there is no answer of 0.
    """
    try:
        _check_length(values)
        return SamplingParams.build(**values)
    except InvalidRequest as error:
        raise _in_their_words(error, names or {}) from None


def _check_length(values: Mapping[str, Any]) -> None:
    if values.get("max_tokens") == 0 and values.get("prompt_logprobs") is None:
        scoring = "; 0 only scores a prompt, with echo" if "prompt_logprobs" in values else ""
        raise InvalidRequest(f"max_tokens must be at least 1{scoring}.", field="max_tokens")


def _in_their_words(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    ours = str(error.data.get("field", ""))
    theirs = names.get(ours, ours)
    if theirs == ours:
        return error
    message = error.message.replace(ours, theirs, 1)
    return InvalidRequest(message, **{**error.data, "field": theirs})


def _token_id(key: str) -> int:
    if key.isascii() and key.isdecimal() and len(key) < 20:
        return int(key)
    raise InvalidRequest(
        'Each key of logit_bias must be a token id, such as "50256".', field="logit_bias"
    )
