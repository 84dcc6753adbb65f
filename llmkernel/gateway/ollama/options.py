"""`options` of a request: sampling by Ollama's names, and settings that a worker has already."""

from __future__ import annotations

from typing import Any

import msgspec

from llmkernel.errors import InvalidRequest, UnsupportedField
from llmkernel.gateway.translation import sampling
from llmkernel.gateway.translation.refusals import CONTEXT, LOADING, SAMPLER, Refused, refuse
from llmkernel.params import SamplingParams

_REFUSED = {
    "num_keep": Refused(CONTEXT),
    "num_batch": Refused(LOADING),
    "num_gpu": Refused(LOADING),
    "num_thread": Refused(LOADING),
    "main_gpu": Refused(LOADING),
    "use_mmap": Refused(LOADING),
    "use_mlock": Refused(LOADING),
    "numa": Refused(LOADING, (False,)),
    "low_vram": Refused(LOADING, (False,)),
    "f16_kv": Refused(LOADING),
    "logits_all": Refused(LOADING),
    "vocab_only": Refused(LOADING, (False,)),
    "embedding_only": Refused(LOADING, (False,)),
    "mirostat": Refused(SAMPLER, (0,)),
    "mirostat_tau": Refused(SAMPLER),
    "mirostat_eta": Refused(SAMPLER),
    "tfs_z": Refused(SAMPLER, (1,)),
    "penalize_newline": Refused(SAMPLER, (True,)),
}
_NAMES = {
    "max_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    "logprobs": "top_logprobs",
} | {
    name: f"options.{name}"
    for name in "temperature top_k top_p min_p typical_p seed stop presence_penalty "
    "frequency_penalty".split()
}


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields typed Any are refused, by name, unless they ask for nothing.

    What is left out has this project's defaults, which are the plain distribution of the model.
    """

    num_predict: int | None = None
    """Tokens to generate at most; negative is up to the context length."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    """The penalty looks at the whole context, which is -1."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    num_ctx: int | None = None
    """A context length that the worker must have at least."""
    num_keep: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    num_thread: Any = None
    main_gpu: Any = None
    use_mmap: Any = None
    use_mlock: Any = None
    numa: Any = None
    low_vram: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    vocab_only: Any = None
    embedding_only: Any = None
    mirostat: Any = None
    mirostat_tau: Any = None
    mirostat_eta: Any = None
    tfs_z: Any = None
    penalize_newline: Any = None


def params(options: Options, logprobs: int | None) -> SamplingParams:
    """The sampling parameters. Raises InvalidRequest or UnsupportedField naming the option."""
    refuse(options, _REFUSED, "options.")
    _check_window(options)
    limit = options.num_predict
    values = {
        "max_tokens": None if limit is not None and limit < 0 else limit,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "typical_p": options.typical_p,
        "repetition_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "seed": options.seed,
        "stop": options.stop,
        "logprobs": logprobs,
    }
    return sampling.build(values, _NAMES)


def check_context(options: Options, length: int) -> None:
    """Refuse a longer context than the worker's. Raises InvalidRequest with both numbers."""
    asked = options.num_ctx
    if asked is not None and asked > length > 0:
        raise InvalidRequest(
            f"options.num_ctx asks for {asked} tokens; the worker was started with {length}. "
            "Leave it out, or start the worker with a larger context_length.",
            field="options.num_ctx",
        )


def _check_window(options: Options) -> None:
    penalised = options.repeat_penalty not in (None, 1.0)
    if penalised and options.repeat_last_n not in (None, -1):
        raise UnsupportedField(
            "options.repeat_last_n must be -1 or left out: the penalty looks at the whole context.",
            field="options.repeat_last_n",
        )
