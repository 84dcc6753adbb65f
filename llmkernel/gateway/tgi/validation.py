"""Parameters in Text Generation Inference's names, checked in its order and in its words."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from llmkernel.errors import InvalidRequest
from llmkernel.gateway import features
from llmkernel.gateway.settings import Limits
from llmkernel.gateway.tgi.schemas import Parameters
from llmkernel.params import SamplingParams
from llmkernel.protocol import ModelInfo

LONG_ANSWER = 1024
"""An answer is checked for room in parts of this many tokens."""
_U64 = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of a gateway in front of one model."""

    limits: Limits
    input_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, limits: Limits, info: ModelInfo) -> Bounds:
        """What the settings say, and the model where they say nothing."""
        total = min(limits.max_total_tokens or info.context_length, info.context_length)
        longest = min(limits.max_input_tokens or total - 1, total - 1)
        return cls(limits=limits, input_tokens=longest, total_tokens=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request that is understood, but for what needs its tokens."""

    params: SamplingParams
    max_new_tokens: int | None
    truncate: int | None
    full_text: bool
    details: bool
    prefill: bool
    top_n: int
    best_of: int
    seed: int | None
    """The seed as the client knows it; None where nothing is drawn."""


def plan(
    given: Parameters | None, bounds: Bounds, *, inputs: str, stream: bool, full_text: bool
) -> Plan:
    """What a request asks for. Raises InvalidRequest in TGI's words, in its order."""
    asked = given if given is not None else Parameters(do_sample=True)
    best_of = _best_of(asked, bounds.limits, stream=stream)
    _numbers(asked)
    _lists(asked, bounds.limits, best_of)
    if not inputs:
        raise _invalid("`inputs` cannot be empty", "inputs")
    _truncate(asked.truncate, bounds.input_tokens)
    features.watermark(asked.watermark, "watermark")
    features.grammar(asked.grammar, "grammar")
    features.adapter(asked.adapter_id, "adapter_id")
    draws = best_of > 1 or _draws(asked)
    seed = (secrets.randbits(63) if asked.seed is None else asked.seed) if draws else None
    top_n = asked.top_n_tokens or 0
    details = bool(asked.details or asked.decoder_input_details)
    return Plan(
        params=_sampling(asked, seed, best_of, top_n if details or stream else None, stream=stream),
        max_new_tokens=asked.max_new_tokens,
        truncate=asked.truncate,
        full_text=full_text if asked.return_full_text is None else asked.return_full_text,
        details=details,
        prefill=bool(asked.decoder_input_details),
        top_n=top_n,
        best_of=best_of,
        seed=None if best_of > 1 else seed,
    )


def room(plan: Plan, length: int, bounds: Bounds) -> int:
    """Tokens that the answer may have. Raises InvalidRequest where prompt and answer do not fit."""
    asked = plan.max_new_tokens
    most = bounds.total_tokens
    checked = max(most - length, 0) if asked is None else min(asked, LONG_ANSWER)
    if length + checked > most:
        raise _invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {most}. "
            f"Given: {length} `inputs` tokens and {checked} `max_new_tokens`",
            "max_new_tokens",
        )
    if length > bounds.input_tokens:
        raise _invalid(
            f"`inputs` must have less than {bounds.input_tokens} tokens. Given: {length}", "inputs"
        )
    return min(most - length, checked if asked is None else asked)


def _best_of(asked: Parameters, limits: Limits, *, stream: bool) -> int:
    best_of = 1 if asked.best_of is None else asked.best_of
    if stream and best_of != 1:
        raise _invalid("`best_of` != 1 is not supported when streaming tokens", "best_of")
    if stream and asked.decoder_input_details:
        raise _invalid(
            "`decoder_input_details` == true is not supported when streaming tokens",
            "decoder_input_details",
        )
    if limits.max_best_of == 1 and best_of != 1:
        raise _invalid("`best_of` != 1 is not allowed for this endpoint", "best_of")
    if not 1 <= best_of <= limits.max_best_of:
        raise _invalid(
            f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {best_of}", "best_of"
        )
    chosen = (asked.temperature, asked.top_k, asked.top_p, asked.typical_p)
    if best_of > 1 and not (asked.do_sample or any(value is not None for value in chosen)):
        raise _invalid("you must use sampling when `best_of` is > 1", "best_of")
    return best_of


def _numbers(asked: Parameters) -> None:
    for name in ("temperature", "repetition_penalty"):
        value = getattr(asked, name)
        if value is not None and not value > 0:
            raise _invalid(f"`{name}` must be strictly positive", name)
    frequency = asked.frequency_penalty
    if frequency is not None and not -2.0 <= frequency <= 2.0:
        raise _invalid("`frequency_penalty` must be >= -2.0 and <= 2.0", "frequency_penalty")
    for name in ("top_p", "typical_p"):
        value = getattr(asked, name)
        if value is not None and not 0.0 < value < 1.0:
            raise _invalid(f"`{name}` must be > 0.0 and < 1.0", name)
    if asked.top_k is not None and asked.top_k <= 0:
        raise _invalid("`top_k` must be strictly positive", "top_k")
    if asked.max_new_tokens == 0:
        raise _invalid("`max_new_tokens` must be strictly positive", "max_new_tokens")


def _lists(asked: Parameters, limits: Limits, best_of: int) -> None:
    stops, most = len(asked.stop or ()), limits.max_stop_sequences
    if stops > most:
        raise _invalid(f"`stop` supports up to {most} stop sequences. Given: {stops}", "stop")
    if asked.seed is not None and best_of > 1:
        raise _invalid("`seed` must not be set when `best_of` > 1", "seed")
    if asked.seed is not None and asked.seed >= _U64:
        raise _invalid("`seed` must be below 2^64", "seed")
    top, most = asked.top_n_tokens or 0, limits.max_top_n_tokens
    if top > most:
        raise _invalid(f"`top_n_tokens` must be >= 0 and <= {most}. Given: {top}", "top_n_tokens")


def _truncate(value: int | None, most: int) -> None:
    if value is not None and not 0 < value <= most:
        raise _invalid(
            f"`truncate` must be strictly positive and less than {most}. Given: {value}", "truncate"
        )


def _draws(asked: Parameters) -> bool:
    """Whether tokens are drawn: asked for, or implied by a parameter that only makes sense so."""
    warps = (asked.top_k, asked.top_p, asked.typical_p)
    warm = asked.temperature is not None and asked.temperature != 1.0
    return bool(asked.do_sample) or warm or any(value is not None for value in warps)


def _sampling(
    asked: Parameters, seed: int | None, best_of: int, top: int | None, *, stream: bool
) -> SamplingParams:
    if best_of > 1 or stream:
        top = top or 0  # which answer is best, and a stream's tokens, need log-probabilities
    return SamplingParams.build(
        temperature=0.0 if seed is None else asked.temperature,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        top_k=asked.top_k if seed is not None else None,
        top_p=asked.top_p,
        typical_p=asked.typical_p,
        stop=[text for text in asked.stop or () if text],
        seed=_signed(seed),
        n=best_of,
        logprobs=top,
        prompt_logprobs=0 if asked.decoder_input_details else None,
    )


def _signed(seed: int | None) -> int | None:
    """The same 64 bits as the engine counts them."""
    return seed if seed is None or seed < _U64 // 2 else seed - _U64


def _invalid(message: str, field: str) -> InvalidRequest:
    return InvalidRequest(message, field=field)
