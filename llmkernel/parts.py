"""What messages are made of: the structures that are sent inside one, never by themselves."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["loading", "ready", "draining", "failed"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
STEP_SECONDS = tuple(0.0001 * 1.5**k for k in range(1, 36))
"""Bounds of the times in a StepReport, which are those of Text Generation Inference's metrics."""
STEP_PROMPTS = tuple(float(2**k) for k in range(11))
"""Bounds of the prompts in a step."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything that is sent inside a message."""


class ChatMessage(_Part, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class TopToken(_Part, frozen=True):
    """An alternative the model weighed."""

    token_id: int
    text: str
    logprob: float


class TokenLogprob(_Part, frozen=True):
    """A token, its log-probability under the model's own logits, and the likeliest others."""

    token_id: int
    text: str
    logprob: float | None = None
    """None only for the first prompt token, which nothing precedes."""
    top: list[TopToken] = []


class Usage(_Part, frozen=True):
    """Tokens read and written."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were already in the prefix cache."""
    completion_tokens: int = 0
    """Over all answers, those of best_of that were not returned included."""


class Timings(_Part, frozen=True):
    """Seconds on the worker's monotonic clock."""

    queue: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    first_step: int = 0
    """Number of the engine's step that took it in; 0 where none did. Requests that ran in one
    step have its number in common."""
    last_step: int = 0
    """Number of the last step that computed a token of it."""

    @property
    def time_to_first_token(self) -> float:
        """Seconds from arrival to the first token."""
        return self.queue + self.prefill


class Output(_Part, frozen=True):
    """One answer, complete or as far as it came."""

    index: int = 0
    text: str = ""
    token_ids: list[int] = []
    finish_reason: FinishReason = "stop"
    stop_reason: str | int | None = None
    """The stop text or stop token id that ended it; None for end-of-sequence."""
    logprobs: list[TokenLogprob] | None = None
    mean_logprob: float | None = None


class StreamDelta(_Part, frozen=True):
    """What one answer gained in a step. `seq` counts from 0 without a gap per request."""

    id: int
    seq: int
    index: int = 0
    text: str = ""
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] | None = None


class ModelInfo(_Part, frozen=True):
    """What a worker holds and what it took for it."""

    model: str
    revision: str | None = None
    architecture: str = ""
    quantization: str = "none"
    dtype: str = ""
    device: str = ""
    context_length: int = 0
    max_prompt_tokens: int = 0
    vocab_size: int = 0
    parameters: int = 0
    weights_bytes: int = 0
    kernels: str = ""
    """Whose code computes it."""
    gpu_memory: int = 0
    """The most that all of it may take on its GPU, in bytes; 0 is no bound."""
    kv_cache_bytes: int = 0
    kv_blocks: int = 0
    block_size: int = 0
    max_concurrent: int = 0
    queue: int = 0
    has_chat_template: bool = False


class Load(_Part, frozen=True):
    """What a worker is doing now."""

    running: int = 0
    waiting: int = 0
    free_blocks: int = 0
    cached_blocks: int = 0
    steps: int = 0
    preemptions: int = 0
    tokens_generated: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens_per_second: float = 0.0
    """Over the last ten seconds."""
    requests_finished: int = 0
    requests_failed: int = 0


class Spread(_Part, frozen=True):
    """How often a number was how large."""

    counts: list[int] = []
    """For each bound, those that are not above it and above the one before; the last, all larger."""
    sum: float = 0.0


class StepKind(_Part, frozen=True):
    """Steps of one kind. Times are in seconds, in buckets of 0.0001 · 1.5^k for k from 1 to 35."""

    launched: int = 0
    succeeded: int = 0
    failed: int = 0
    inference: Spread = Spread()
    """The whole step: the two below."""
    forward: Spread = Spread()
    """From the launch, or from the end of the step before it, until its tokens were read back."""
    decode: Spread = Spread()
    """Handing the tokens out and seeing who is done."""


class StepReport(_Part, frozen=True):
    """How the steps of a worker went since its start."""

    prefill: StepKind = StepKind()
    """Steps that read prompts; sequences that decode may be in them, too."""
    decode: StepKind = StepKind()
    """Steps in which every sequence gets its next token."""
    joined: int = 0
    """Steps that read prompts beside sequences that decode."""
    prompts: Spread = Spread()
    """Prompts in a step that reads any, in buckets of 1, 2, 4 … 1024."""
